"""ICC profiles in the ways that the corpus does not cover (test_corpus.py)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from PIL import Image, ImageCms

from handlers.pictures.decode import decode
from handlers.pictures.limits import PROFILE_BYTES
from tests.corpus.encoders import gray_profile
from tests.handlers.support import Save

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOR, SWAPPED_COLOR = (200, 50, 100), (50, 200, 100)
IMAGE = Image.new("RGB", (16, 16), COLOR)


def swapped(description: str) -> bytes:
    """sRGB with its red and green primaries swapped: (r, g, b) means sRGB's (g, r, b)."""
    assert len(description) == 4  # the offsets in the profile must not change
    primaries = SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    named = primaries.replace("sRGB".encode("utf-16-be"), description.encode("utf-16-be"))
    assert named != SRGB
    return named


def pixel(data: bytes) -> tuple[int, ...]:
    value = decode(data).getpixel((3, 3))
    assert isinstance(value, tuple)
    return value


FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {"quality": 95},
}


def test_a_profile_is_judged_by_its_numbers_not_its_name(saved: Save) -> None:
    # Such as "sRGB-elle-V2-g10.icc" of Krita and GIMP, which is linear.
    data = saved(IMAGE, icc_profile=swapped("sRGB"))
    assert pixel(data) == pytest.approx(SWAPPED_COLOR, abs=2)


# sRGB's 188 is half of the light of white.
@pytest.mark.parametrize(
    ("mode", "value", "format"),
    [("L", 128, "JPEG"), ("I;16", 128 * 257, "PNG"), ("LA", (128, 255), "PNG")],
)
def test_a_grayscale_profile(
    saved: Save, mode: str, value: int | tuple[int, ...], format: str
) -> None:
    data = saved(Image.new(mode, (16, 16), value), format, icc_profile=gray_profile(1.0))
    assert pixel(data) == pytest.approx((188,) * 3, abs=1)


@pytest.mark.parametrize("profile", [bytes(128), SRGB[:128] + b"\xff" * 400], ids=["zeros", "ones"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_a_broken_profile_is_ignored(saved: Save, format: str, profile: bytes) -> None:
    assert pixel(saved(IMAGE, format, icc_profile=profile)) == pytest.approx(COLOR, abs=2)


@pytest.mark.parametrize(("mode", "value"), [("L", 77), ("CMYK", (178, 178, 178, 0))])
def test_an_rgb_profile_is_ignored_for_other_channels(
    saved: Save, mode: str, value: int | tuple[int, ...]
) -> None:
    data = saved(Image.new(mode, (16, 16), value), "JPEG", icc_profile=swapped("swap"))
    assert pixel(data) == pytest.approx((77,) * 3, abs=2)


@pytest.mark.parametrize(("format", "options"), FORMATS.items(), ids=FORMATS)
def test_a_profile_over_the_limit_is_ignored(
    saved: Save, format: str, options: dict[str, Any]
) -> None:
    profile = swapped("swap")
    largest = saved(IMAGE, format, icc_profile=profile.ljust(PROFILE_BYTES, b"\0"), **options)
    assert pixel(largest) == pytest.approx(SWAPPED_COLOR, abs=2)
    larger = saved(IMAGE, format, icc_profile=profile.ljust(PROFILE_BYTES + 1, b"\0"), **options)
    assert pixel(larger) == pytest.approx(COLOR, abs=2)


def test_no_profile_is_kept_in_memory(saved: Save) -> None:
    pictures = [saved(IMAGE, icc_profile=SRGB + bytes(2**20 + i)) for i in range(8)]
    decode(pictures[0])
    tracemalloc.start()
    for picture in pictures[1:]:
        decode(picture)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 2**20
