"""Pictures beyond a limit are refused by their header, with a message that names the limit.

The corpus has files that claim huge sizes in every format: test_corpus.py.
"""

from __future__ import annotations

import pytest
from PIL import Image, ImageFile

from handlers.errors import TooLarge
from handlers.pictures.decode import decode
from handlers.pictures.limits import Limits
from tests.corpus import by_name
from tests.handlers.support import Save

SCAN = b"\xff\xda"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_too_many_pixels(saved: Save, format: str) -> None:
    limits = Limits(pixels=100)
    assert decode(saved(Image.new("RGB", (10, 10)), format), limits).size == (10, 10)
    with pytest.raises(TooLarge, match="11x10 = 110 pixels; the limit is 100"):
        decode(saved(Image.new("RGB", (11, 10)), format), limits)


@pytest.mark.parametrize("options", [{}, {"lossless": True}], ids=["lossy", "lossless"])
def test_webp_has_a_limit_of_its_own(saved: Save, options: dict[str, bool]) -> None:
    limits = Limits(webp_pixels=100)
    data = saved(Image.new("RGB", (10, 10)), "WEBP", **options)
    assert decode(data, limits).size == (10, 10)
    with pytest.raises(TooLarge, match="the WebP has 11x10 = 110 pixels; the limit is 100"):
        decode(saved(Image.new("RGB", (11, 10)), "WEBP", **options), limits)
    assert decode(saved(Image.new("RGB", (11, 10))), limits).size == (11, 10)


def test_pillows_own_limit_is_a_too_large_error() -> None:
    """Decode processes switch Pillow's limit off; here it applies and raises."""
    with pytest.raises(TooLarge, match="50000000"):
        decode(by_name()["png claims 2147483647x1"].data)


def test_jpeg_scans(saved: Save, photographs: dict[str, Image.Image]) -> None:
    data = saved(photographs["chelsea"].resize((75, 50)), "JPEG", progressive=True)
    scans = data.count(SCAN)
    assert scans == 10  # libjpeg's default script for colour
    decode(data, Limits(jpeg_scans=scans))
    with pytest.raises(TooLarge, match="more scans than the limit of 9"):
        decode(data, Limits(jpeg_scans=scans - 1))


@pytest.mark.parametrize("size", [(75, 50), (50, 75)])
def test_jpeg_scans_times_pixels(
    saved: Save, photographs: dict[str, Image.Image], size: tuple[int, int]
) -> None:
    # The thumbnail in the metadata has scans and pixels too; they do not count.
    exif = Image.Exif()
    exif[0x010E] = saved(photographs["coffee"], "JPEG", progressive=True).decode("latin-1")
    picture = photographs["chelsea"].resize(size)
    data = saved(picture, "JPEG", progressive=True, exif=exif.tobytes()[:65000])
    decode(data, Limits(jpeg_scan_pixels=10 * 75 * 50))
    with pytest.raises(TooLarge, match="10 scans of 3750 pixels; the limit is 37499 together"):
        decode(data, Limits(jpeg_scan_pixels=10 * 75 * 50 - 1))


def test_pillows_settings_are_left_alone(chelsea: bytes) -> None:
    decode(chelsea)
    assert Image.MAX_IMAGE_PIXELS == 1024**3 // 4 // 3  # Pillow's default
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
