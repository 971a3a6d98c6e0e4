"""A generator's output becomes a picture: (y + 1) / 2 * 255, rounded, clamped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.pictures.resample import resample
from handlers.tasks.translate import to_image
from tests.specs import CYCLEGAN_ORIGINAL
from tests.tensors import to_tensor


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1.0, 0),
        (1.0, 255),
        (0.0, 128),  # 127.5
        (-1.5, 0),
        (1.5, 255),
        (1e30, 255),
        (100.4 / 127.5 - 1, 100),
        (100.6 / 127.5 - 1, 101),
        (254.6 / 127.5 - 1, 255),
    ],
)
def test_one_value(value: float, expected: int) -> None:
    image = to_image(torch.full((3, 4, 8), value))
    assert (image.mode, image.size) == ("RGB", (8, 4))
    assert image.getpixel((7, 3)) == (expected,) * 3


def test_every_sample_is_the_nearest_level_and_in_its_place() -> None:
    output = torch.rand((3, 20, 30), generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels = torch.from_numpy(np.array(to_image(output))).permute(2, 0, 1)
    exact = (output.double() + 1) / 2 * 255
    assert (pixels - exact).abs().max() <= 0.5 + 1e-4


def test_the_output_is_not_written_to() -> None:
    output = torch.rand(3, 4, 4)
    before = output.clone()
    to_image(output)
    assert torch.equal(output, before)


def test_it_is_the_inverse_of_an_input_in_the_same_range(
    photographs: dict[str, Image.Image],
) -> None:
    picture = photographs["astronaut"].resize((64, 64))
    again = to_image(to_tensor(CYCLEGAN_ORIGINAL, resample(CYCLEGAN_ORIGINAL, picture, resize=64)))
    assert again.tobytes() == picture.tobytes()


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0), (0.5, 128), (1.0, 255), (1.2, 255)])
def test_another_range(value: float, expected: int) -> None:
    image = to_image(torch.full((3, 4, 8), value), (0.0, 1.0))
    assert image.getpixel((0, 0)) == (expected,) * 3
