"""An ICC profile is honoured; a broken one, or one for other channels, is ignored."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageCms

from handlers.pictures.decode import decode
from handlers.pictures.limits import PROFILE_BYTES
from tests.corpus.metadata import gray_profile

Save = Callable[..., bytes]

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped(description: str) -> bytes:
    """sRGB with its red and green primaries swapped: (r, g, b) means sRGB's (g, r, b)."""
    assert len(description) == 4  # offsets in the profile must stay
    primaries = SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    named = primaries.replace("sRGB".encode("utf-16-be"), description.encode("utf-16-be"))
    assert named != SRGB
    return named


def pixel(data: bytes) -> tuple[int, ...]:
    found = decode(data).getpixel((3, 3))
    assert isinstance(found, tuple)
    return found


FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {"quality": 95},
}


@pytest.mark.parametrize(("format", "how"), FORMATS.items(), ids=FORMATS)
def test_the_colours_are_what_the_profile_says(
    saved: Save, format: str, how: dict[str, Any]
) -> None:
    image = Image.new("RGB", (16, 16), (200, 50, 100))
    found = pixel(saved(image, format, icc_profile=swapped("swap"), **how))
    assert found == pytest.approx((50, 200, 100), abs=2)


def test_a_profile_is_judged_by_its_numbers_not_its_name(saved: Save) -> None:
    # As "sRGB-elle-V2-g10.icc" of Krita and GIMP, which is linear.
    profile = swapped("sRGB")
    image = Image.new("RGB", (16, 16), (200, 50, 100))
    assert pixel(saved(image, icc_profile=profile)) == pytest.approx((50, 200, 100), abs=2)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_the_profile_holds_for_palettes_and_alpha(saved: Save, mode: str) -> None:
    image = Image.new("RGB", (16, 16), (200, 50, 100))
    image = image.quantize() if mode == "P" else image.convert(mode)
    found = pixel(saved(image, icc_profile=swapped("swap")))
    assert found == pytest.approx((50, 200, 100), abs=2)


# Linear light of a half is sRGB's 188.
@pytest.mark.parametrize(
    ("mode", "value", "format"),
    [
        ("L", 128, "PNG"),
        ("L", 128, "JPEG"),
        ("L", 128, "TIFF"),
        ("I;16", 128 * 257, "PNG"),
        ("LA", (128, 255), "PNG"),
    ],
)
def test_a_grayscale_profile(
    saved: Save, mode: str, value: int | tuple[int, ...], format: str
) -> None:
    image = Image.new(mode, (16, 16), value)
    assert pixel(saved(image, format, icc_profile=gray_profile(1.0))) == pytest.approx(
        (188,) * 3, abs=1
    )


def test_srgb_changes_nothing(saved: Save, photographs: dict[str, Image.Image]) -> None:
    picture = photographs["astronaut"].resize((64, 64))
    assert decode(saved(picture, icc_profile=SRGB)).tobytes() == picture.tobytes()


BROKEN = {
    "junk": b"junk",
    "cut": SRGB[:200],
    "zeros": bytes(128),
    "tags of 0xff": SRGB[:128] + b"\xff" * 400,
    "for gray": gray_profile(1.0),
}


@pytest.mark.parametrize("profile", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_a_profile_that_cannot_be_used_is_ignored(saved: Save, format: str, profile: bytes) -> None:
    image = Image.new("RGB", (16, 16), (200, 50, 100))
    assert pixel(saved(image, format, icc_profile=profile)) == pytest.approx((200, 50, 100), abs=2)


@pytest.mark.parametrize(("mode", "value"), [("L", 77), ("CMYK", (178, 178, 178, 0))])
def test_a_profile_for_rgb_on_other_channels_is_ignored(
    saved: Save, mode: str, value: int | tuple[int, ...]
) -> None:
    data = saved(Image.new(mode, (16, 16), value), "JPEG", icc_profile=swapped("swap"))
    assert pixel(data) == pytest.approx((77,) * 3, abs=2)


@pytest.mark.parametrize(("format", "how"), FORMATS.items(), ids=FORMATS)
def test_a_profile_over_the_limit_is_ignored(saved: Save, format: str, how: dict[str, Any]) -> None:
    image, profile = Image.new("RGB", (16, 16), (200, 50, 100)), swapped("swap")
    largest = saved(image, format, icc_profile=profile.ljust(PROFILE_BYTES, b"\0"), **how)
    assert pixel(largest) == pytest.approx((50, 200, 100), abs=2)
    larger = saved(image, format, icc_profile=profile.ljust(PROFILE_BYTES + 1, b"\0"), **how)
    assert pixel(larger) == pytest.approx((200, 50, 100), abs=2)


def test_no_profile_is_kept(saved: Save) -> None:
    image = Image.new("RGB", (8, 8))
    pictures = [saved(image, icc_profile=SRGB + bytes(2**20 + i)) for i in range(8)]
    decode(pictures[0])
    tracemalloc.start()
    for picture in pictures[1:]:
        decode(picture)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 2**20
