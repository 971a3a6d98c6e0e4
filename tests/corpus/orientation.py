"""EXIF orientation in every format that carries it, and broken EXIF, which says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from tests.corpus.case import Array, Case, good, saved, scene
from tests.corpus.encoders import (
    LONG,
    ORIENTATION,
    SHORT,
    chunk,
    directory,
    exif,
    png,
    riff,
    segment,
    tiff,
    tiff_header,
    vp8x,
    webp,
)

# What Pillow needs for each format, and how far its samples may be off.
HOW: dict[str, tuple[str, dict[str, Any], int]] = {
    "jpeg": ("JPEG", {"quality": 95, "subsampling": 0}, 8),
    "png": ("PNG", {}, 0),
    "webp": ("WEBP", {"lossless": True}, 0),
    "tiff": ("TIFF", {"compression": "tiff_lzw"}, 0),
    "avif": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}, 8),
}


def stored(orientation: int) -> Image.Image:
    """The scene as a camera stores it: EXIF 2.32, tag 0x0112, "the 0th row is the visual ..."."""
    upright = np.asarray(scene())
    turned: Array = upright if orientation < 5 else upright.transpose(1, 0, 2)
    # Of the turned ones, 6 and 7 store the last column first, and 7 and 8 the last row.
    rows, columns = {
        1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1),
        5: (1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1),
    }[orientation]  # fmt: skip
    return Image.fromarray(np.ascontiguousarray(turned[::rows, ::columns]))


def cases() -> Iterator[Case]:
    for name, (format, how, tolerance) in HOW.items():
        for orientation in range(1, 9):
            written = Image.Exif()
            written[ORIENTATION] = orientation
            data = saved(stored(orientation), format, exif=written, **how)
            yield good(f"{name} orientation {orientation}", data, scene(), tolerance)
    yield from _variants()
    yield from _broken()


def _variants() -> Iterator[Case]:
    jpeg, webp_file = (saved(stored(6), HOW[f][0], **HOW[f][1]) for f in ("jpeg", "webp"))
    for order, name in (("<", "little"), (">", "big")):
        data = _with_app1(jpeg, exif(6, order=order))
        yield good(f"jpeg orientation 6 {name} endian", data, scene(), 8)
    yield good("jpeg orientation 6 as long", _with_app1(jpeg, exif(6, LONG)), scene(), 8)
    both = _with_app1(_with_app1(jpeg, b"http://ns.adobe.com/xap/1.0/\0<x/>"), exif(6))
    yield good("jpeg orientation 6 before xmp", both, scene(), 8)
    samples = np.asarray(stored(6))
    tags = {ORIENTATION: (SHORT, [6])}
    yield good("tiff orientation 6 uncompressed", tiff(samples, 2, fields=tags), scene())
    big = tiff(samples, 2, fields=tags, order=">", big=True)
    yield good("bigtiff orientation 6 big endian", big, scene())
    # PNG 11.3.4.5: eXIf holds no "Exif" prefix, and may come behind the pixels.
    late = chunk(b"eXIf", exif(6)[6:])
    yield good("png orientation 6 after the pixels", png(samples, 8, 2, after=late), scene())
    # RFC 9649, 2.7.1.5: the chunk is EXIF's payload without a prefix; many writers put one.
    canvas = vp8x(*stored(6).size, 8)
    for name, start in (("without", 6), ("with", 0)):
        data = webp(canvas, webp_file[12:], riff(b"EXIF", exif(6)[start:]))
        yield good(f"webp orientation 6 {name} prefix", data, scene())
    alpha = np.concatenate([samples, np.full((*samples.shape[:2], 1), 255, np.uint8)], -1)
    alpha[:8, :, 3] = 0  # row 0 is the right side
    expected = np.asarray(scene()).copy()
    expected[:, -8:] = 255
    yield good("png orientation 6 with alpha", png(alpha, 8, 6, before=late), expected)
    # HEIF (ISO 23008-12, 6.5.10): the irot box turns; an Exif that says otherwise is information.
    for turn in (6, 1):
        written = Image.Exif()
        written[ORIENTATION], written[0x010F] = turn, "ab"
        avif = saved(stored(turn), "AVIF", exif=written, **HOW["avif"][1])
        other = avif.replace(b"\1\x0f\0\2\0\0\0\3ab\0\0", b"\1\x12\0\3\0\0\0\1\0\3\0\0")
        yield good(f"avif orientation {turn} against exif", other, scene(), 8)


def _broken() -> Iterator[Case]:
    loop = tiff_header(8) + directory({0x8769: (LONG, [8]), 0x8825: (LONG, [8])}, 8, following=8)
    entry = exif(6)
    broken = {
        "junk": b"Exif\0\0junk",
        "header alone": b"Exif\0\0",
        "empty": b"",
        "offset outside": b"Exif\0\0II*\0\xff\xff\xff\x7f",
        "cut in an entry": entry[:-10],
        "orientation 0": exif(0),
        "orientation 9": exif(9),
        "orientation 65535": exif(65535),
        "orientation of text": entry.replace(b"\3\0\1\0\0\0\6", b"\2\0\1\0\0\x006"),
        "unknown type": entry.replace(b"\3\0\1\0\0\0\6", b"\x63\0\1\0\0\0\6"),
        "two billion values": entry.replace(b"\3\0\1\0\0\0", b"\3\0\xff\xff\xff\x7f"),
        "ifds in a circle": b"Exif\0\0" + loop,
        "65535 entries": b"Exif\0\0" + tiff_header(8) + b"\xff\xff" + bytes(200),
    }
    upright = np.asarray(scene())
    jpeg = saved(scene(), "JPEG", **HOW["jpeg"][1])
    webp_file = saved(scene(), "WEBP", lossless=True)
    for name, data in broken.items():
        yield good(f"jpeg exif {name}", _with_app1(jpeg, data), scene(), 8)
        data = png(upright, 8, 2, before=chunk(b"eXIf", data[6:]))
        yield good(f"png exif {name}", data, scene())
    for name in ("junk", "offset outside", "cut in an entry", "two billion values"):
        data = webp(vp8x(48, 32, 8), webp_file[12:], riff(b"EXIF", broken[name][6:]))
        yield good(f"webp exif {name}", data, scene())
    for value in (0, 9, 65535):
        data = tiff(upright, 2, fields={ORIENTATION: (SHORT, [value])})
        yield good(f"tiff orientation {value}", data, scene())


def _with_app1(jpeg: bytes, data: bytes) -> bytes:
    """``jpeg`` with an APP1 segment right behind its first marker, where EXIF 2.32 wants it."""
    return jpeg[:2] + segment(0xE1, data) + jpeg[2:]
