"""Whatever holds a picture -> the bytes of an image file."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias, TypeGuard, Union, runtime_checkable

from vision_client.extras import extra

if TYPE_CHECKING:
    from PIL import Image


@runtime_checkable
class Array(Protocol):
    """A NumPy array, or anything with the same interface."""

    @property
    def __array_interface__(self) -> dict[str, object]: ...


Picture: TypeAlias = Union[  # a string cannot be an operand of |
    str, os.PathLike[str], bytes, bytearray, memoryview, BinaryIO, "Image.Image", Array
]


def encoded(picture: Picture) -> bytes:
    """``picture`` as an image file.

    Paths, bytes and binary streams are sent unchanged, whatever their format: the server detects it
    from the content. So is the file of a PIL image, if the image still is what the file holds; else
    the image becomes a PNG or TIFF, without loss, or shrunk if it would have more bytes than the
    server takes. An array, ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)`` uint8: gray, RGB or RGBA, is
    encoded likewise. Images and arrays need Pillow (MissingExtra). Raises OSError if a file cannot
    be read or is not a regular file, TypeError or ValueError if ``picture`` is something else.
    """
    if _is_pil_image(picture):
        return _to_file(picture)
    match picture:
        case str() | os.PathLike():
            return read_file(picture)
        case bytes() | bytearray() | memoryview():
            return bytes(picture)
        case Array():
            return _to_file(_from_array(picture))
    read = getattr(picture, "read", None)
    data = read() if read is not None else None
    if not isinstance(data, bytes):
        raise TypeError(
            "a picture is a path, bytes, a binary stream, a PIL image or a NumPy array, "
            f"not {type(picture).__name__}{' of text' if isinstance(data, str) else ''}"
        )
    return data


def is_picture(value: object) -> bool:
    """Whether ``value`` is one picture and no path, which may be that of a folder."""
    if _is_pil_image(value) or isinstance(value, bytes | bytearray | memoryview):
        return True
    return hasattr(value, "read") or (isinstance(value, Array) and _is_one(value))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The content of ``path``. OSError if it is not a regular file: a FIFO may never end."""
    _require_regular(Path(path).stat(), path)  # before opening, which may affect a device
    with io.FileIO(os.fspath(path), opener=_open_nonblocking) as file:
        _require_regular(os.fstat(file.fileno()), path)
        return file.readall()


def _open_nonblocking(path: str, flags: int) -> int:
    """Without O_NONBLOCK, opening a FIFO waits for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no O_NONBLOCK


def _require_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        os.scandir(path).close()  # raises the reason why a folder has no pictures
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        message = "not a regular file but a FIFO, socket or device"
        raise OSError(errno.EINVAL, message, str(path))


def _is_pil_image(picture: object) -> TypeGuard[Image.Image]:
    """Whether ``picture`` is a PIL image; if Pillow was never imported, it is not."""
    # Another thread may be importing it: the module has no class yet.
    image_class = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return image_class is not None and isinstance(picture, image_class)


def _to_file(image: Image.Image) -> bytes:
    from vision_client.images import to_file

    return to_file(image)


def _from_array(array: Array) -> Image.Image:
    layout = array.__array_interface__
    if layout["typestr"] != "|u1":
        raise TypeError("an array must be uint8, 0 to 255")
    if not _is_one(array):
        raise ValueError(f"an array must be (H, W), (H, W, 3) or (H, W, 4), not {layout['shape']}")
    with extra("images", "an array as a picture"):
        from PIL import Image
    return Image.fromarray(array)


def _is_one(array: Array) -> bool:
    """Whether its shape is that of one picture."""
    match array.__array_interface__["shape"]:
        case (_, _) | (_, _, 3 | 4):
            return True
    return False
