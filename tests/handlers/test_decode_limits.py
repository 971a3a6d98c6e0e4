"""Pictures over a limit are refused before they are decoded, with the limit in the message.

tests/corpus has the files that exceed the default limits.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image, ImageFile

from handlers.errors import TooLarge
from handlers.pictures.decode import decode
from handlers.pictures.limits import LIMITS, Limits

Save = Callable[..., bytes]

SCAN = b"\xff\xda"


def test_the_limits_are_those_of_the_contract() -> None:
    assert (LIMITS.request_bytes, LIMITS.pixels) == (16 * 2**20, 50_000_000)
    assert (LIMITS.webp_pixels, LIMITS.jpeg_scan_pixels) == (25_000_000, 1_000_000_000)
    assert (LIMITS.jpeg_scans, LIMITS.network_pixels) == (100, 2_000_000)
    assert (LIMITS.decode_seconds, LIMITS.decode_bytes) == (10, 512 * 2**20)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_too_many_pixels(saved: Save, format: str) -> None:
    limits = Limits(pixels=100)
    assert decode(saved(Image.new("RGB", (10, 10)), format), limits).size == (10, 10)
    with pytest.raises(TooLarge, match="11x10 = 110 pixels; the limit is 100"):
        decode(saved(Image.new("RGB", (11, 10)), format), limits)


def test_webp_has_its_own_limit(saved: Save) -> None:
    limits = Limits(webp_pixels=100)
    for how in ({}, {"lossless": True}):
        data = saved(Image.new("RGB", (10, 10)), "WEBP", **how)
        assert decode(data, limits).size == (10, 10)
        with pytest.raises(TooLarge, match="the WebP has 11x10 = 110 pixels; the limit is 100"):
            decode(saved(Image.new("RGB", (11, 10)), "WEBP", **how), limits)
    assert decode(saved(Image.new("RGB", (11, 10))), limits).size == (11, 10)


def test_jpeg_scans(saved: Save, photographs: dict[str, Image.Image]) -> None:
    data = saved(photographs["chelsea"].resize((75, 50)), "JPEG", progressive=True)
    scans = data.count(SCAN)
    assert scans == 10  # libjpeg's own script for colour
    decode(data, Limits(jpeg_scans=scans))
    with pytest.raises(TooLarge, match="more scans than the limit of 9"):
        decode(data, Limits(jpeg_scans=scans - 1))


def test_scans_count_more_in_a_larger_jpeg(
    saved: Save, photographs: dict[str, Image.Image]
) -> None:
    for width, height in ((75, 50), (50, 75)):
        picture = photographs["chelsea"].resize((width, height))
        data = saved(picture, "JPEG", progressive=True)
        decode(data, Limits(jpeg_scan_pixels=10 * width * height))
        with pytest.raises(TooLarge, match="10 scans of 3750 pixels; the limit is 37499 together"):
            decode(data, Limits(jpeg_scan_pixels=10 * width * height - 1))
    # Metadata may hold a thumbnail.
    exif = Image.Exif()
    exif[0x010E] = saved(photographs["coffee"], "JPEG", progressive=True).decode("latin-1")
    data = saved(picture, "JPEG", progressive=True, exif=exif.tobytes()[:65000])
    decode(data, Limits(jpeg_scan_pixels=10 * 75 * 50))


def test_pillows_own_settings_are_left_alone(chelsea: bytes) -> None:
    decode(chelsea)
    assert Image.MAX_IMAGE_PIXELS == 1024**3 // 4 // 3  # Pillow's default
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
