"""Large JPEGs are decoded at a fraction of their size, with nearly the same network input."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from handlers.pictures.decode import decode
from handlers.pictures.resample import resample
from tests.handlers.support import Save
from tests.specs import RESNET101


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
def test_the_shorter_side_stays_at_least_twice_the_networks(
    saved: Save, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    data = saved(Image.new("RGB", size, "teal"), "JPEG")
    assert decode(data, resize=256).size == expected
    assert decode(data).size == size


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_other_formats_keep_their_size(saved: Save, format: str) -> None:
    data = saved(Image.new("RGB", (2048, 1100)), format)
    assert decode(data, resize=64).size == (2048, 1100)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grayscale_and_cmyk_shrink_too(saved: Save, mode: str) -> None:
    data = saved(Image.new(mode, (2048, 2048)), "JPEG")
    assert decode(data, resize=256).size == (512, 512)


@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee"])
@pytest.mark.parametrize("size", [(2000, 1500), (4000, 3000)])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_networks_input_is_nearly_the_same(
    photographs: dict[str, Image.Image],
    saved: Save,
    name: str,
    size: tuple[int, int],
    progressive: bool,
) -> None:
    picture = photographs[name].resize(size, Image.Resampling.BICUBIC)
    data = saved(picture, "JPEG", progressive=progressive)
    whole, shrunk = (
        np.asarray(resample(RESNET101, image), np.int16)
        for image in (decode(data), decode(data, resize=RESNET101.resize))
    )
    difference = np.abs(whole - shrunk)
    assert 0 < difference.mean() < 0.4
    assert difference.max() <= 6


def test_a_shrunk_jpeg_is_turned_upright(saved: Save) -> None:
    halves = Image.new("RGB", (2400, 1600), "red")
    halves.paste("blue", (0, 0, 1200, 1600))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    image = decode(saved(halves, "JPEG", exif=exif), resize=256)
    assert image.size == (800, 1200)
    assert np.asarray(image.getpixel((400, 100))).argmax() == 2
    assert np.asarray(image.getpixel((400, 1100))).argmax() == 0
