"""Reduces a PNG to the chunks that determine its pixels.

Pillow parses every chunk and refuses a file with a damaged or large ancillary chunk, such as the
2 MB captions that image generators write. libpng and browsers skip such chunks. Source: W3C PNG,
third edition, chapters 5 and 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from handlers.pictures.limits import PROFILE_BYTES

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"eXIf")


def essential(data: bytes) -> tuple[bytes, bytes | None]:
    """A PNG file -> a file with the same pixels, and its ICC profile.

    The profile is None if it is missing, broken or larger than ``PROFILE_BYTES``. An animation is
    reduced to its default image. Raises ValueError if a required palette is missing.
    """
    kept = [_SIGNATURE]
    profile = None
    header = palette = b""
    for kind, body, raw in _chunks(data):
        if kind == b"IHDR":
            header = body
        elif kind == b"PLTE":
            palette = body
        if kind in _KEPT:
            kept.append(raw)
        elif kind == b"tRNS":
            kept.append(_transparency(body, header, palette))
        elif kind == b"iCCP":
            profile = _inflated(body)
    if header[9:10] == b"\3" and not palette:
        raise ValueError("no palette")  # Pillow would fail later, when it converts the pixels
    return b"".join(kept), profile


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(type, data, whole chunk) of each chunk; the last one may be truncated."""
    at = len(_SIGNATURE)
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        yield kind, data[at + 8 : end - 4], data[at:end]
        if kind == b"IEND":
            return
        at = end


def _transparency(body: bytes, header: bytes, palette: bytes) -> bytes:
    """A tRNS chunk with the same effect in Pillow; empty if it does not apply.

    Pillow compares the transparent level with samples that it has already scaled to 8 bits.
    """
    depth, color = header[8:10] if len(header) == 13 else (0, -1)
    if color == 3:
        body = body[: len(palette) // 3]
    elif color in (0, 2):
        count = 1 if color == 0 else 3
        if len(body) != 2 * count:
            return b""
        levels = struct.unpack(f">{count}H", body)
        if color == 0 and depth in (2, 4):
            levels = tuple(level * 255 // (2**depth - 1) for level in levels)
        elif color == 2 and depth == 16:
            levels = tuple(level >> 8 for level in levels)
        body = struct.pack(f">{count}H", *levels)
    else:
        return b""
    crc = zlib.crc32(b"tRNS" + body)
    return struct.pack(">I", len(body)) + b"tRNS" + body + struct.pack(">I", crc)


def _inflated(body: bytes) -> bytes | None:
    """The profile of an iCCP chunk: name, zero byte, compression method, zlib stream."""
    _, _, packed = body.partition(b"\0")
    try:
        stream = zlib.decompressobj()
        profile = stream.decompress(
            packed[1:], PROFILE_BYTES + 1
        )  # one more byte, to detect a larger profile
    except zlib.error:
        return None
    return profile if stream.eof and len(profile) <= PROFILE_BYTES else None
