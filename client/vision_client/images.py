"""A PIL image -> the bytes of a file from which the server computes the same answer.

If the image still is what its file holds, that file is sent. Otherwise a lossless file is made: a
PNG, or a TIFF for the modes that PNG cannot store. If that has more bytes than the server takes,
the image is shrunk, by no more than necessary.
"""

from __future__ import annotations

import io
import math
import os
import threading
from pathlib import Path
from typing import Any, TypeGuard

from PIL import Image, ImageFile

# The server's default limits for a picture (docs/contract.md).
PICTURE_BYTES = 16 * 2**20
PICTURE_PIXELS = 50_000_000
PROFILE_BYTES = 4 * 2**20  # it ignores larger ICC profiles
# The bytes of a PNG or TIFF of incompressible samples, per byte of these.
_OVERHEAD = 1.01

# The formats that the server reads.
_SERVED = {"AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP"}
# Modes by the format that stores them without loss, and what the others are converted to.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_TIFF_MODES = {"CMYK", "F", "I", "LAB"}
_CONVERTED = {"I;16B": "I", "I;16L": "I", "I;16N": "I", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
_SAMPLE_BYTES = {"I;16": 2, "I": 4, "F": 4}

_ORIENTATION_TAG = 0x0112
# What makes an image upright, by EXIF orientation.
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Two threads may send the same image, whose file has one position.
_reading = threading.Lock()


def to_file(image: Image.Image) -> bytes:
    """``image`` as the file that it was opened from, or as a PNG or TIFF with its colour profile.

    OSError or ValueError if Pillow can neither read nor convert it.
    """
    try:
        return _to_file(image)
    except (OSError, ValueError):
        raise
    except Exception as error:  # Pillow fails in many ways
        raise ValueError(f"Pillow cannot encode this image: {error}") from error


def _to_file(image: Image.Image) -> bytes:
    with _reading:
        original = _original(image)
        if original is not None and _is_undecoded(image):
            if _is_untouched(image, original):
                return original
            original = None
        image.load()
        orientation = _orientation(image)
    if original is not None and _is_decoded(image, original, orientation):
        return original
    if orientation != 1:
        image = image.transpose(_TRANSPOSE[orientation])
    if image.mode not in _PNG_MODES | _TIFF_MODES:
        image = image.convert(_CONVERTED.get(image.mode, "RGB"))
    if image.width * image.height <= PICTURE_PIXELS:
        try:
            return _encode(image, _Bounded())
        except _TooLong:
            pass
    return _encode(_shrink(image), io.BytesIO())


def _original(image: Image.Image) -> bytes | None:
    """The file of ``image``, or None if it is gone or the server would refuse it."""
    if not isinstance(image, ImageFile.ImageFile) or image.format not in _SERVED:
        return None
    # With this flag Pillow opens files that the server refuses.
    if ImageFile.LOAD_TRUNCATED_IMAGES or image.width * image.height > PICTURE_PIXELS:
        return None
    try:
        data = _source(image)
    except (OSError, ValueError):  # ValueError: a closed stream
        return None
    return data if len(data) <= PICTURE_BYTES else None


def _source(image: ImageFile.ImageFile) -> bytes:
    """The bytes of the file from which ``image`` is still to be decoded, or was decoded."""
    if image.fp is None:
        return Path(os.fsdecode(image.filename)).read_bytes()
    position = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(position)
    return data


def _is_undecoded(image: Image.Image) -> TypeGuard[ImageFile.ImageFile]:
    """If so, no pixel can have changed."""
    return isinstance(image, ImageFile.ImageFile) and bool(image.tile)


def _is_untouched(image: ImageFile.ImageFile, original: bytes) -> bool:
    """Whether ``image``, not decoded yet, is as Pillow opens ``original``."""
    try:
        with Image.open(io.BytesIO(original)) as fresh:
            kept = image.tell(), image.size, image.mode, image.tile, image.info
            if kept != (fresh.tell(), fresh.size, fresh.mode, fresh.tile, fresh.info):
                return False
            # Without EXIF in front, getexif decodes a PNG: nobody has turned this one.
            is_unturned = image.format == "PNG" and "exif" not in image.info
            return is_unturned or _orientation(image) == _orientation(fresh)
    except Exception:  # noqa: BLE001 - Pillow fails in many ways
        return False


def _is_decoded(image: Image.Image, original: bytes, orientation: int) -> bool:
    """Whether ``image`` is ``original``: the same frame, pixels, profile and orientation."""
    try:
        with Image.open(io.BytesIO(original)) as fresh:
            if image.tell() != fresh.tell() or image.size != fresh.size:
                return False
            fresh.load()
            return orientation == _orientation(fresh) and image == fresh
    except Exception:  # noqa: BLE001 - Pillow fails in many ways
        return False


def _orientation(image: Image.Image) -> int:
    """By EXIF, 1 to 8; the server ignores broken EXIF too."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
        return orientation if orientation in _TRANSPOSE else 1
    except Exception:  # noqa: BLE001 - Pillow parses EXIF in Python and fails in many ways
        return 1


class _TooLong(Exception):
    """The file would have more than PICTURE_BYTES."""


class _Bounded(io.BytesIO):
    """Raises _TooLong."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > PICTURE_BYTES:
            raise _TooLong
        return super().write(data)


def _encode(image: Image.Image, buffer: io.BytesIO) -> bytes:
    """As a PNG or TIFF, written to ``buffer``."""
    if image.mode in _PNG_MODES:
        # Fast rather than small: the file is read once, mostly on a nearby machine.
        image.save(buffer, "PNG", compress_level=1, icc_profile=_profile(image))
    else:
        options = {"compression": "tiff_adobe_deflate", "icc_profile": _profile(image)}
        image.save(buffer, "TIFF", **options)
    return buffer.getvalue()


def _profile(image: Image.Image) -> bytes | None:
    """The ICC profile; None if the server would ignore it for its length."""
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and len(profile) <= PROFILE_BYTES else None


def _shrink(image: Image.Image) -> Image.Image:
    """As large as surely fits into PICTURE_BYTES: 5.5 million pixels of RGB.

    Networks take far fewer, so that their inputs change little: samples of photographs by 0.2 of
    255 on average if the shorter side becomes 512, by 0.6 if it becomes 1024.
    """
    if image.mode == "1":
        image = image.convert("L")
    elif image.has_transparency_data and image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    elif image.mode == "P":
        image = image.convert("RGB")
    sample = _SAMPLE_BYTES.get(image.mode, 1)
    samples = (PICTURE_BYTES - len(_profile(image) or b"")) / _OVERHEAD / sample
    pixels = samples / len(image.getbands())
    size = _scaled(*image.size, math.sqrt(pixels / (image.width * image.height)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _scaled(width: int, height: int, scale: float) -> tuple[int, int]:
    """``(width, height)``, at most ``scale`` times as large, with the same ratio if possible.

    Else the server could round the longer side of a translation to another size.
    """
    divisor = math.gcd(width, height)
    factor = int(divisor * scale)
    if factor >= 0.75 * divisor * scale:
        return width // divisor * factor, height // divisor * factor
    return max(int(width * scale), 1), max(int(height * scale), 1)
