"""The task translate: output tensor to 8-bit picture, and picture to file."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.pictures.resample import resample
from handlers.tasks.translate import Translate, encode, to_image
from tests.specs import CYCLEGAN, CYCLEGAN_ORIGINAL
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
def test_a_value_is_scaled_rounded_and_clamped(value: float, expected: int) -> None:
    image = to_image(torch.full((3, 4, 8), value))
    assert (image.mode, image.size) == ("RGB", (8, 4))
    assert image.getpixel((7, 3)) == (expected,) * 3


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0), (0.5, 128), (1.0, 255), (1.2, 255)])
def test_another_output_range(value: float, expected: int) -> None:
    image = to_image(torch.full((3, 4, 8), value), (0.0, 1.0))
    assert image.getpixel((0, 0)) == (expected,) * 3


def test_every_sample_is_the_nearest_level() -> None:
    output = torch.rand((3, 20, 30), generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = output.clone()
    pixels = torch.from_numpy(np.array(to_image(output))).permute(2, 0, 1)
    exact = (output.double() + 1) / 2 * 255
    assert (pixels - exact).abs().max() <= 0.5 + 1e-4
    assert torch.equal(output, before), "the output must not be changed"


def test_an_input_of_the_same_range_comes_back(photographs: dict[str, Image.Image]) -> None:
    picture = photographs["astronaut"].resize((64, 64))
    again = to_image(to_tensor(CYCLEGAN_ORIGINAL, resample(CYCLEGAN_ORIGINAL, picture, resize=64)))
    assert again.tobytes() == picture.tobytes()


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_the_file_has_the_format_and_the_picture(
    photographs: dict[str, Image.Image], format: str
) -> None:
    picture = photographs["chelsea"]
    with Image.open(io.BytesIO(encode(picture, format, 95))) as image:
        assert (image.format, image.size) == (format.upper(), picture.size)
        difference = np.asarray(image.convert("RGB"), np.int16) - np.asarray(picture, np.int16)
    assert np.abs(difference).mean() <= (0 if format == "png" else 3)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_a_higher_quality_gives_a_larger_file(
    photographs: dict[str, Image.Image], format: str
) -> None:
    sizes = [len(encode(photographs["chelsea"], format, quality)) for quality in (1, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[2] > 3 * sizes[0]


def test_a_network_of_one_size_offers_no_size() -> None:
    task = Translate(dataclasses.replace(CYCLEGAN, crop=256))
    assert list(task.offer.integers) == ["quality"]
    assert task.canary_options == {}
