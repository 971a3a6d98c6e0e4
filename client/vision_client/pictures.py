"""Whatever holds a picture, as the bytes that are sent."""

from __future__ import annotations

import errno
import io
import os
import stat
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
    be read or is not a regular file, TypeError or ValueError where it is no picture.
    """
    match picture:
        case str() | os.PathLike():
            return read_file(picture)
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


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The content of ``path``. OSError where it is not a regular file: a FIFO may never end."""
    _require_regular(Path(path).stat(), path)  # first: opening a device may have effects
    with io.FileIO(os.fspath(path), opener=_open_without_waiting) as file:
        _require_regular(os.fstat(file.fileno()), path)
        return file.readall()


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a FIFO would wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows lacks


def _require_regular(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        words = "not a regular file but a FIFO, socket or device"
        raise OSError(errno.EINVAL, words, str(path))


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
