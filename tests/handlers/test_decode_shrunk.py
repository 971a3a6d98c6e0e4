"""Large JPEGs are decoded at a fraction of their size, and look the same to the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from handlers.pictures.decode import decode
from handlers.pictures.resample import resample
from tests.specs import RESNET101

Save = Callable[..., bytes]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4000, 3000), (1000, 750)),
        ((3000, 4000), (750, 1000)),
        ((8000, 6000), (1000, 750)),
        ((1280, 720), (1280, 720)),
        ((1600, 1023), (1600, 1023)),
        ((1600, 1024), (800, 512)),
        ((20_000, 50), (20_000, 50)),
    ],
)
def test_the_shorter_side_stays_twice_what_is_needed(
    saved: Save, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    data = saved(Image.new("RGB", size, "teal"), "JPEG")
    assert decode(data, resize=256).size == expected
    assert decode(data).size == size


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_other_formats_keep_their_size(saved: Save, format: str) -> None:
    data = saved(Image.new("RGB", (2048, 1100)), format)
    assert decode(data, resize=64).size == (2048, 1100)


@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee"])
@pytest.mark.parametrize("size", [(2000, 1500), (4000, 3000)])
@pytest.mark.parametrize("how", [{}, {"progressive": True}])
def test_the_networks_input_is_nearly_the_same(
    photographs: dict[str, Image.Image],
    saved: Save,
    name: str,
    size: tuple[int, int],
    how: dict[str, bool],
) -> None:
    data = saved(photographs[name].resize(size, Image.Resampling.BICUBIC), "JPEG", **how)
    whole, shrunk = (
        np.asarray(resample(RESNET101, image), np.int16)
        for image in (decode(data), decode(data, resize=RESNET101.resize))
    )
    off = np.abs(whole - shrunk)
    assert 0 < off.mean() < 0.4
    assert off.max() <= 6


def test_it_is_turned_upright_all_the_same(saved: Save) -> None:
    halves = Image.new("RGB", (2400, 1600), "red")
    halves.paste("blue", (0, 0, 1200, 1600))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    found = decode(saved(halves, "JPEG", exif=exif), resize=256)
    assert found.size == (800, 1200)
    assert np.asarray(found.getpixel((400, 100))).argmax() == 2
    assert np.asarray(found.getpixel((400, 1100))).argmax() == 0


def test_cmyk_and_gray_are_shrunk_too(saved: Save) -> None:
    for mode in ("L", "CMYK"):
        assert decode(saved(Image.new(mode, (2048, 2048)), "JPEG"), resize=256).size == (512, 512)
