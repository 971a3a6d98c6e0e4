"""EXIF orientation and ICC profiles in every format that has them; broken ones are ignored."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from tests.corpus import png
from tests.corpus.case import Array, Case, good, group, half_clear, saved, scene, written
from tests.corpus.jpeg import inserted, segment
from tests.corpus.tiff import (
    INK,
    LONG,
    ORIENTATION,
    PROFILE,
    RGB,
    SHORT,
    UNDEFINED,
    directory,
    header,
    tiff,
)
from tests.corpus.webp import riff, vp8x, webp

APP1, APP2, APP13 = 0xE1, 0xE2, 0xED
FORMATS = {
    "jpeg": "jpeg",
    "png": "png",
    "webp": "webp lossless",
    "tiff": "tiff lzw",
    "avif": "avif",
}


def exif(orientation: int, kind: int = SHORT, order: str = "<") -> bytes:
    """EXIF 2.32 data of one entry, as an APP1 segment holds it."""
    entry = directory({ORIENTATION: (kind, [orientation])}, 8, order)
    return b"Exif\0\0" + header(8, order) + entry


_NOW = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SRGB = _NOW[:24] + bytes(12) + _NOW[36:]  # ICC.1:2001-04, 6.1.6: without the current time
# sRGB with its red and green primaries swapped: (r, g, b) means sRGB's (g, r, b).
SWAPPED = SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def gray_profile(gamma: float) -> bytes:
    """A grayscale input profile (6.3.2) of one curve."""
    d50 = struct.pack(">3i", 63190, 65536, 54061)
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"gray\0" + bytes(79),
        b"wtpt": b"XYZ \0\0\0\0" + d50,
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256)),
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    start = struct.pack(">I4xI", 128 + len(table) + len(body), 0x02400000)
    start += b"mntrGRAYXYZ " + bytes(12) + b"acsp"
    return (start.ljust(68, b"\0") + d50).ljust(128, b"\0") + table + body


def cases() -> Iterator[Case]:
    yield from _orientation()
    yield from _orientation_variants()
    yield from _broken_exif()
    yield from _profiles()
    yield from _profile_variants()
    yield from _large()


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


def _tagged(way: str, orientation: int, maker: str = "") -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    if maker:
        tags[0x010F] = maker
    return written(way, stored(orientation), exif=tags)


def _orientation() -> Iterator[Case]:
    for name, way in FORMATS.items():
        for orientation in range(1, 9):
            slack = 8 if name in ("jpeg", "avif") else 0
            data = _tagged(way, orientation)
            yield good(f"{name} orientation {orientation}", data, scene(), slack)


def _orientation_variants() -> Iterator[Case]:
    jpeg, pixels = written("jpeg", stored(6)), np.asarray(stored(6))
    late = png.chunk(b"eXIf", exif(6)[6:])
    xmp = segment(APP1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    yield from group(good, "jpeg orientation 6", {
        "little endian": inserted(jpeg, segment(APP1, exif(6))),
        "big endian": inserted(jpeg, segment(APP1, exif(6, order=">"))),
        "as long": inserted(jpeg, segment(APP1, exif(6, LONG))),
        "before xmp": inserted(jpeg, segment(APP1, exif(6)), xmp),
    }, scene(), 8)  # fmt: skip
    body = written("webp lossless", stored(6))[12:]
    canvas = vp8x(*stored(6).size, 8)
    uncompressed = tiff(pixels, RGB, {ORIENTATION: (SHORT, [6])})
    yield good("tiff orientation 6 uncompressed", uncompressed, scene())
    # PNG 11.3.4.5: eXIf has no "Exif" prefix, and may come behind the pixels.
    yield good("png orientation 6 after the pixels", png.png(pixels, after=late), scene())
    # RFC 9649, 2.7.1.5: the chunk has no prefix either, but many writers put one.
    yield from group(good, "webp orientation 6", {
        "without prefix": webp(canvas, body, riff(b"EXIF", exif(6)[6:])),
        "with prefix": webp(canvas, body, riff(b"EXIF", exif(6))),
    }, scene())  # fmt: skip
    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    alpha[:8, :, 3] = 0  # row 0 is the right side
    expected = np.asarray(scene()).copy()
    expected[:, -8:] = 255
    data = png.png(alpha, png.RGBA, after=late)
    yield good("png orientation 6 with alpha", data, expected)
    # HEIF (ISO 23008-12, 6.5.10): the irot box turns; an EXIF that contradicts it is ignored.
    for turn in (6, 1):
        avif = _tagged("avif", turn, maker="ab")
        other = avif.replace(b"\1\x0f\0\2\0\0\0\3ab\0\0", b"\1\x12\0\3\0\0\0\1\0\3\0\0")
        yield good(f"avif orientation {turn} against exif", other, scene(), 8)


def _broken_exif() -> Iterator[Case]:
    loop = header(8) + directory({0x8769: (LONG, [8]), 0x8825: (LONG, [8])}, 8, following=8)
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
        "orientation 6 over 0": entry.replace(b"\3\0\1\0\0\0\6", b"\5\0\1\0\0\0\xff"),
        "two billion values": entry.replace(b"\3\0\1\0\0\0", b"\3\0\xff\xff\xff\x7f"),
        "ifds in a circle": b"Exif\0\0" + loop,
        "65535 entries": b"Exif\0\0" + header(8) + b"\xff\xff" + bytes(200),
        # Each directory points to the next, and the last to the first.
        "of 3000 directories in a circle": b"Exif\0\0" + header(8) + b"".join(
            struct.pack("<HHHIII", 1, 0x8769, LONG, 1, *(8 + 18 * (n % 3000) for n in (i, i + 1)))
            for i in range(1, 3001)
        ),
    }  # fmt: skip
    jpeg, upright, body = written("jpeg"), np.asarray(scene()), written("webp lossless")[12:]
    for name, data in broken.items():
        yield good(f"jpeg exif {name}", inserted(jpeg, segment(APP1, data)), scene(), 8)
        chunk = png.chunk(b"eXIf", data[6:])
        yield good(f"png exif {name}", png.png(upright, before=chunk), scene())
        data = webp(vp8x(flags=8), body, riff(b"EXIF", data[6:]))
        yield good(f"webp exif {name}", data, scene())
    for value in (0, 9, 65535):
        data = tiff(upright, RGB, {ORIENTATION: (SHORT, [value])})
        yield good(f"tiff orientation {value}", data, scene())


def through(profile: bytes, image: Image.Image) -> Image.Image:
    """``image`` converted from ``profile`` to sRGB by LittleCMS."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    assert converted is not None
    return converted


def _profiles() -> Iterator[Case]:
    picture, gray, linear = scene(), scene().convert("L"), gray_profile(1.0)
    half, _ = half_clear()
    of_swapped = through(SWAPPED, picture)
    white = Image.new("RGB", picture.size, "white")
    on_white = Image.composite(of_swapped, white, half.getchannel("A"))
    for name, way in FORMATS.items():
        slack = 8 if name in ("jpeg", "avif") else 0
        data = written(way, icc_profile=SRGB)
        yield good(f"{name} profile of srgb", data, picture, max(slack, 1))
        data = written(way, icc_profile=SWAPPED)
        yield good(f"{name} profile swapped", data, of_swapped, slack + 2)
        for junk, profile in (
            ("junk", b"junk" * 40), ("cut", SRGB[:200]), ("gray", linear),
            ("zeros", bytes(128)), ("ff", SRGB[:128] + b"\xff" * 400),
        ):  # fmt: skip
            data = written(way, icc_profile=profile)
            yield good(f"{name} profile of {junk} ignored", data, picture, slack)
        if name in ("png", "tiff", "jpeg"):
            data = written(way, gray, icc_profile=linear)
            yield good(f"{name} gray profile", data, through(linear, gray), max(slack, 1))
            data = written(way, gray, icc_profile=SWAPPED)
            yield good(f"{name} gray with an rgb profile", data, gray, slack)
        if name in ("png", "webp", "tiff"):
            exact: dict[str, Any] = {"exact": True} if name == "webp" else {}  # keeps clear colours
            data = written(way, half, icc_profile=SWAPPED, **exact)
            yield good(f"{name} rgba profile swapped", data, on_white, 1)


def _profile_variants() -> Iterator[Case]:
    picture, ink, dull = scene(), scene().convert("CMYK"), scene().quantize(64)
    of_swapped, values = through(SWAPPED, picture), np.asarray(picture)
    data = saved(dull, "PNG", icc_profile=SWAPPED)
    yield good("png palette profile swapped", data, through(SWAPPED, dull.convert("RGB")), 1)
    # Linear light of a half is sRGB's 188.
    for name, flat in (
        ("16 bit", Image.new("I;16", (16, 16), 128 * 257)),
        ("alpha", Image.new("LA", (16, 16), (128, 255))),
    ):
        data = saved(flat, "PNG", icc_profile=gray_profile(1.0))
        yield good(f"png gray {name} profile", data, Image.new("L", (16, 16), 188), 1)
    data = saved(ink, "JPEG", quality=95, icc_profile=SWAPPED)
    yield good("jpeg cmyk with an rgb profile", data, picture, 3)
    fields = {PROFILE: (UNDEFINED, list(b"junk" * 50))}
    data = tiff(np.asarray(ink), INK, fields)
    yield good("tiff cmyk broken profile", data, ink.convert("RGB"), 2)
    # ICC.1, B.4: a profile over several APP2 segments, each with its number and their count.
    thirds = [SWAPPED[i : i + 200] for i in range(0, len(SWAPPED), 200)]
    parts = [_profile_part(i, len(thirds), part) for i, part in enumerate(thirds, 1)]
    jpeg = written("jpeg")
    yield from group(good, "jpeg profile", {
        "in parts": inserted(jpeg, *parts),
        "in parts backwards": inserted(jpeg, *parts[::-1]),
    }, of_swapped, 10)  # fmt: skip
    yield good("jpeg profile with a part missing", inserted(jpeg, *parts[1:]), picture, 8)
    for name, body in (
        ("unknown compression", b"\7x"),
        ("cut", b"\0" + zlib.compress(SWAPPED)[:50]),
    ):
        data = png.png(values, before=png.chunk(b"iCCP", b"icc\0" + body))
        yield good(f"png profile chunk {name}", data, picture)


def _profile_part(number: int, count: int, part: bytes) -> bytes:
    return segment(APP2, b"ICC_PROFILE\0" + bytes([number, count]) + part)


def _large() -> Iterator[Case]:
    noise = np.random.default_rng(3).bytes(65_000)
    entities = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'
    xmp, photoshop = b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
    jpeg = written("jpeg")
    yield from group(good, "jpeg", {name: inserted(jpeg, *segments) for name, segments in {
        "exif of 64 kB": [segment(APP1, exif(1) + bytes(65_000))],
        "exif of 64 kB of ff": [segment(APP1, b"Exif\0\0" + b"\xff" * 65_000)],
        "profile of 4 MB of noise": [_profile_part(i, 60, noise) for i in range(1, 61)],
        "xmp of 20000 open tags": [segment(APP1, xmp + b"<a>" * 20_000)],
        "xmp of entities": [segment(APP1, xmp + entities)],
        "photoshop block of noise": [segment(APP13, photoshop + noise[:999])],
        "photoshop block that ends early": [
            segment(APP13, photoshop + b"8BIM\x04\x04\0\0\x7f\xff\xff\xff")
        ],
    }.items()}, scene(), 8)  # fmt: skip
    index = segment(APP2, b"MPF\0" + bytes(range(200)))
    yield good("mpo index of noise", inserted(jpeg, index), scene(), 8)
