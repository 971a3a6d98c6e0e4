"""Whatever holds a picture, as the bytes that are sent."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, runtime_checkable

from PIL import Image, ImageOps


@runtime_checkable
class Array(Protocol):
    """A NumPy array, or what is laid out like one."""

    @property
    def __array_interface__(self) -> dict[str, object]: ...


Picture: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | Array
)


def encoded(picture: Picture) -> bytes:
    """``picture`` as an image file.

    A path, bytes or a binary stream is sent as it is, whatever its format: the server decides by
    the content. A PIL image becomes a PNG, turned upright, with its colour profile. An array is
    ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)`` uint8: gray, RGB or RGBA. OSError where a file cannot
    be read, TypeError or ValueError where it is no picture.
    """
    match picture:
        case str() | os.PathLike():
            return Path(picture).read_bytes()
        case bytes() | bytearray() | memoryview():
            return bytes(picture)
        case Image.Image():
            return _png(ImageOps.exif_transpose(picture))
        case Array():
            return _png(_from_array(picture))
    read = getattr(picture, "read", None)
    data = read() if read is not None else None
    if not isinstance(data, bytes):
        raise TypeError(
            "a picture is a path, bytes, a binary stream, a PIL image or a NumPy array, "
            f"not {type(picture).__name__}{' of text' if isinstance(data, str) else ''}"
        )
    return data


def _from_array(array: Array) -> Image.Image:
    layout = array.__array_interface__
    shape = layout["shape"]
    if layout["typestr"] != "|u1":
        raise TypeError("an array must be uint8, 0 to 255")
    match shape:
        case (_, _) | (_, _, 3 | 4):
            return Image.fromarray(array)
    raise ValueError(f"an array must be (H, W), (H, W, 3) or (H, W, 4), not {shape}")


# What PNG can hold; the rest (CMYK, YCbCr, HSV, Lab) is taken to RGB.
_PNG_MODES = {"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    if image.mode not in _PNG_MODES:
        image = image.convert("RGB")
    # A fast level: it is read once, and mostly near by.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
