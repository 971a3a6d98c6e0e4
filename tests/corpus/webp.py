"""WebP and AVIF: animations, alpha, unknown parts, damage and claims.

Sections are those of RFC 9649, and of ISO 14496-12 for AVIF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.corpus.case import Case, bad, good, group, half_clear, saved, scene, too_large, written


def riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def webp(*chunks: bytes) -> bytes:
    return riff(b"RIFF", b"WEBP" + b"".join(chunks))


def u24(*values: int) -> bytes:
    return b"".join(value.to_bytes(3, "little") for value in values)


def vp8x(width: int = 48, height: int = 32, flags: int = 0) -> bytes:
    """Section 2.7: the canvas. Flags: 2 animation, 4 XMP, 8 EXIF, 16 alpha, 32 ICC."""
    return riff(b"VP8X", bytes([flags, 0, 0, 0]) + u24(width - 1, height - 1))


def _frame(body: bytes, left: int = 0, top: int = 0) -> bytes:
    """2.7.1.1: a frame of 48x32. Offsets are halved; 2 is "do not blend"."""
    return riff(b"ANMF", u24(left // 2, top // 2, 47, 31, 100) + b"\2" + body)


_ANIM = riff(b"ANIM", b"\x11\x22\x33\xff" + bytes(2))


def cases() -> Iterator[Case]:
    yield from _webp()
    yield from _avif()
    yield from _webp_damaged()
    yield from _avif_damaged()
    yield from _claims()


def _webp() -> Iterator[Case]:
    picture = scene()
    one = written("webp lossless")[12:]
    two = written("webp lossless", picture.rotate(180))[12:]
    yield from group(good, "webp", {
        "animation": webp(vp8x(flags=2), _ANIM, _frame(one), _frame(two)),
        "extended": webp(vp8x(), one),
        "unknown chunk": webp(vp8x(), one, riff(b"ABCD", b"unknown")),
        "of 1000 frames": webp(vp8x(flags=2), _ANIM, *[_frame(one)] * 1000),
        "with a chunk cut behind its picture": written("webp lossless") + b"EXIF\xff\xff",
    }, picture)  # fmt: skip
    inside = Image.new("RGB", (80, 60), "white")
    inside.paste(picture, (10, 6))
    data = webp(vp8x(80, 60, 18), _ANIM, _frame(one, 10, 6), _frame(two))
    yield good("webp first frame inside", data, inside)
    half, white = half_clear()
    yield good("webp lossless alpha", written("webp lossless", half, exact=True), white, 1)
    yield good("webp lossy alpha", written("webp lossy", half), white, 16)
    yield good("avif alpha", written("avif", half), white, 8)


def _avif() -> Iterator[Case]:
    picture = scene()
    data = written("avif", save_all=True, append_images=[picture.rotate(180)])
    for name in (b"mvhd", b"tkhd", b"mdhd"):  # 8.2.2: without the current time
        at = data.index(name) + 8
        data = data[:at] + bytes(16) + data[at + 16 :]
    yield good("avif animation", data, picture, 8)
    for sampling in ("4:2:0", "4:2:2", "4:0:0"):
        expected = picture.convert("L") if sampling == "4:0:0" else picture
        data = saved(picture, "AVIF", quality=95, subsampling=sampling)
        yield good(f"avif {sampling.replace(':', '')}", data, expected, 16)
    brand = written("avif")
    yield good("avif that is mif1 first", brand[:8] + b"mif1" + brand[12:], picture, 8)


def _webp_damaged() -> Iterator[Case]:
    lossless, lossy = written("webp lossless"), written("webp lossy")
    body = lossless[12:]
    yield from group(bad, "webp", {
        "riff too long": b"RIFF\xff\xff\xff\x7f" + lossless[8:],
        "riff too short": b"RIFF\x20\0\0\0" + lossless[8:],
        "no chunks": webp(),
        "canvas without a picture": webp(vp8x()),
        "canvas of another size": webp(vp8x(64, 64), body),
        "animation of no frames": webp(vp8x(flags=2), _ANIM),
        "chunk too long": lossless[:16] + b"\xff\xff\xff\x7f" + lossless[20:],
        "lossless damaged": lossless[:40] + bytes(60) + lossless[100:],
        "lossless of another version": lossless[:24] + b"\xff" + lossless[25:],
        "lossy without its start code": lossy[:23] + b"\0\0\0" + lossy[26:],
        "lossy interframe": lossy[:20] + bytes([lossy[20] | 1]) + lossy[21:],
        "alpha of junk": webp(vp8x(flags=16), riff(b"ALPH", b"\1junk"), lossy[12:]),
    })  # fmt: skip


def _avif_damaged() -> Iterator[Case]:
    avif = written("avif")
    pixels, meta, items = avif.index(b"mdat") + 4, avif.index(b"meta"), avif.index(b"iloc") + 18
    yield from group(bad, "avif", {
        "no meta": avif[: meta - 4] + bytes(100),
        "meta of another name": avif.replace(b"meta", b"mete"),
        "no codec": avif.replace(b"av1C", b"av9C"),
        "items elsewhere": avif[:items] + b"\x7f\xff\xff\xff" + avif[items + 4 :],
        "box longer than the file": avif[: meta - 4] + b"\x7f\xff\xff\xff" + avif[meta:],
        "box of no length": avif[: meta - 4] + b"\0\0\0\4" + avif[meta:],
        "pixels of noise": avif[:pixels] + np.random.default_rng(1).bytes(len(avif) - pixels),
    })  # fmt: skip


def _claims() -> Iterator[Case]:
    lossless, lossy, avif = written("webp lossless"), written("webp lossy"), written("avif")
    for side in (7072, 16384, 2**24):
        still = webp(vp8x(side, side), lossless[12:])
        yield too_large(f"webp canvas of {side}x{side}", still)
        moving = webp(vp8x(side, side, 2), _ANIM, _frame(lossless[12:]))
        yield too_large(f"webp animated canvas of {side}x{side}", moving)
    # 3.4: 14 bits for each side, less one; RFC 6386, 9.1: 14 bits for each side.
    sides = riff(b"VP8L", b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + lossless[25:])
    yield too_large("webp lossless claims 16384x16384", webp(sides))
    yield too_large("webp lossy claims 16383x16383", lossy[:26] + b"\xff\x3f\xff\x3f" + lossy[30:])
    at = avif.index(b"ispe") + 8
    # libavif refuses the larger ones before it tells their size; it stretches the picture to 64x64,
    # as browsers do.
    makers = {64: Case, 7072: too_large, 10_000: too_large}
    for side in (0, 64, 7072, 10_000, 100_000, 2**32 - 1):
        data = avif[:at] + struct.pack(">II", side, side) + avif[at + 8 :]
        yield makers.get(side, bad)(f"avif claims {side}x{side}", data)
