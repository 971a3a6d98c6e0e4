"""EXIF orientation: what a camera stored turned comes out upright, once."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from handlers.pictures.decode import decode

Save = Callable[..., bytes]
Pixels = npt.NDArray[np.uint8]

ORIENTATION = 0x0112

# What is stored for an upright picture, from EXIF 2.32's "the 0th row is the visual ..., the 0th
# column is the visual ...": 6 is a row from the right side and a column from the top.
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {"quality": 95, "subsampling": 0}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {"lossless": True}),
    "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "AVIF": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
}


@pytest.fixture(scope="module")
def upright() -> Pixels:
    """Four quarters of one colour each, on whole 8x8 blocks, so that no codec blurs them."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32], pixels[:16, 32:] = (250, 10, 10), (10, 250, 10)
    pixels[16:, :32], pixels[16:, 32:] = (10, 10, 250), (250, 250, 250)
    return pixels


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(("format", "how"), FORMATS.values(), ids=FORMATS)
def test_the_picture_comes_out_upright(
    upright: Pixels, saved: Save, format: str, how: dict[str, Any], orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    decoded = np.asarray(decode(saved(stored, format, exif=exif, **how)))
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() <= 6


def test_transparency_turns_along(upright: Pixels, saved: Save) -> None:
    alpha = np.full((32, 64, 1), 255, np.uint8)
    alpha[:16, :32] = 0
    expected = upright.copy()
    expected[:16, :32] = 255
    stored = np.ascontiguousarray(STORED[6](np.concatenate([upright, alpha], axis=2)))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert (np.asarray(decode(saved(Image.fromarray(stored), exif=exif))) == expected).all()


def exif_bytes(kind: int, value: bytes) -> bytes:
    """EXIF data with one entry, the orientation, of a type and a value of one's choice."""
    entry = struct.pack("<HHHI", 1, ORIENTATION, kind, 1) + value.ljust(4, b"\0")
    return b"Exif\0\0II*\0\x08\0\0\0" + entry + b"\0\0\0\0"


BROKEN = {
    "junk": b"Exif\0\0junk",
    "header alone": b"Exif\0\0",
    "offset outside": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "cut in an entry": exif_bytes(3, b"\x06")[:-10],
    "orientation 0": exif_bytes(3, b"\x00"),
    "orientation 9": exif_bytes(3, b"\x09"),
    "orientation of text": exif_bytes(2, b"6"),
    "orientation of an unknown type": exif_bytes(99, b"\x06"),
    "orientation 6 over 0": exif_bytes(5, b"\xff\xff\xff\x7f"),
}


@pytest.mark.parametrize("exif", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_says_nothing(upright: Pixels, saved: Save, format: str, exif: bytes) -> None:
    how = FORMATS["JPEG"][1] if format == "JPEG" else {"lossless": True}
    decoded = np.asarray(decode(saved(Image.fromarray(upright), format, exif=exif, **how)))
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() <= 6


def test_the_same_bytes_unbroken_turn_the_picture(upright: Pixels, saved: Save) -> None:
    """What makes the test above one of brokenness: this writer's EXIF is read where it is sound."""
    decoded = decode(saved(Image.fromarray(upright), exif=exif_bytes(3, b"\x06")))
    assert decoded.size == (32, 64)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_a_tiff_with_another_orientation_stays(
    upright: Pixels, saved: Save, orientation: int
) -> None:
    data = saved(Image.fromarray(upright), "TIFF", tiffinfo={ORIENTATION: orientation})
    assert (np.asarray(decode(data)) == upright).all()
