"""PNG: every colour type and depth, chunks in every order, damage, claims and bombs.

Sections are those of PNG, third edition (W3C, 2025).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.corpus.case import (
    Array,
    Case,
    bad,
    colours,
    good,
    group,
    on_white,
    packed,
    samples,
    saved,
    scene,
    shown,
    too_large,
    written,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, INDEXED, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6

# 8.1: first row, first column, row step and column step of Adam7's passes.
_ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
_ADAM7 += [(1, 0, 2, 1)]


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """Section 5.3: length, name, data and their checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def ihdr(
    width: int = 48,
    height: int = 32,
    bits: int = 8,
    kind: int = RGB,
    method: int = 0,
    adam7: int = 0,
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, method, adam7))


def rows(values: Array, bits: int = 8, adam7: bool = False) -> bytes:
    """(H, W[, C]) samples as IDAT holds them once inflated; each row has filter 0."""
    passes = _ADAM7 if adam7 else [(0, 0, 1, 1)]
    parts = [values[top::down, left::right] for top, left, down, right in passes]
    lines = [line for p in parts if p.size for line in packed(p.reshape(len(p), -1), bits)]
    return b"".join(b"\0" + line for line in lines)


def idat(raw: bytes, level: int = -1) -> bytes:
    return chunk(b"IDAT", zlib.compress(raw, level))


def file(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND")


def png(
    values: Array,
    kind: int = RGB,
    bits: int = 8,
    *,
    before: bytes = b"",
    after: bytes = b"",
    adam7: bool = False,
) -> bytes:
    """(H, W[, C]) samples as a PNG, with chunks ``before`` and ``after`` its IDAT."""
    height, width = values.shape[:2]
    header = ihdr(width, height, bits, kind, 0, adam7)
    return file(header, before, idat(rows(values, bits, adam7)), after)


def cases() -> Iterator[Case]:
    yield from _depths()
    yield from _transparency()
    yield from _chunks()
    yield from _damaged()
    yield from _ancillary()
    yield from _claims()
    yield from _bombs()


def _depths() -> Iterator[Case]:
    """11.2.1: every colour type at every depth, plain and by Adam7."""
    for adam7 in (False, True):
        ending = " adam7" * adam7
        for bits in (1, 2, 4, 8, 16):
            gray, slack = samples(1, bits), bits // 16
            data = png(gray, GRAY, bits, adam7=adam7)
            yield good(f"png gray {bits} bit{ending}", data, shown(gray, bits))
            if bits <= 8:
                table = colours(2**bits)
                data = png(gray, INDEXED, bits, before=chunk(b"PLTE", table.tobytes()), adam7=adam7)
                yield good(f"png palette {bits} bit{ending}", data, table[gray])
            if bits >= 8:
                rgb = samples(3, bits)
                data = png(rgb, RGB, bits, adam7=adam7)
                yield good(f"png rgb {bits} bit{ending}", data, shown(rgb, bits), slack)
                for kind, name, channels in ((GRAY_ALPHA, "gray alpha", 2), (RGBA, "rgba", 4)):
                    values = samples(channels, bits)
                    data = png(values, kind, bits, adam7=adam7)
                    expected = on_white(values, bits)
                    yield good(f"png {name} {bits} bit{ending}", data, expected, 1 + slack)
    indices, three = samples() % 3, chunk(b"PLTE", colours(3).tobytes())
    yield good("png palette of three", png(indices, INDEXED, before=three), colours(3)[indices])
    rgb = samples(3)
    hints = chunk(b"PLTE", colours(16).tobytes()) + chunk(b"bKGD", b"\0\1\0\2\0\3")
    yield good("png rgb with a palette to hint", png(rgb, before=hints), rgb)
    gamma = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sRGB", b"\0")
    yield good("png gamma of srgb", png(rgb, before=gamma), rgb)


def _transparency() -> Iterator[Case]:
    """11.3.1.1: tRNS names one level or colour at the picture's own depth."""
    for bits in (1, 2, 4, 8, 16):
        gray = samples(1, bits)
        trns = chunk(b"tRNS", struct.pack(">H", gray[2, 3]))
        expected = np.where(gray == gray[2, 3], 255, shown(gray, bits))
        data = png(gray, GRAY, bits, before=trns)
        yield good(f"png trns gray {bits} bit", data, expected)
    for bits in (8, 16):
        rgb = samples(3, bits)
        rgb[3, 4:9] = rgb[2, 3]
        rgb[4, 4:9] = rgb[2, 3] ^ 1  # a neighbour; at 16 bits, equal in the upper 8
        trns = chunk(b"tRNS", struct.pack(">3H", *rgb[2, 3].tolist()))
        expected = np.where((rgb == rgb[2, 3]).all(-1, keepdims=True), 255, shown(rgb, bits))
        case = good(f"png trns rgb {bits} bit", png(rgb, RGB, bits, before=trns), expected)
        yield case if bits == 8 else Case(case.name, case.data)  # Pillow compares 8 bits
    for bits in (1, 2, 4, 8):
        table, indices = colours(2**bits), samples(1, bits)
        alpha = np.full(2**bits, 255)
        clear = 2 ** (bits - 1)  # fewer alphas than colours: the rest is opaque
        alpha[:clear] = np.linspace(0, 200, clear).round()
        before = chunk(b"PLTE", table.tobytes())
        before += chunk(b"tRNS", alpha[:clear].astype(np.uint8).tobytes())
        expected = on_white(np.dstack([table[indices], alpha[indices]]))
        data = png(indices, INDEXED, bits, before=before)
        yield good(f"png trns palette {bits} bit", data, expected, 1)
    clear_all = np.zeros((24, 40, 4), np.uint8)
    yield good("png all clear", png(clear_all, RGBA), np.full((24, 40), 255))


def _chunks() -> Iterator[Case]:
    """4.9: the first frame of an animation is IDAT's, unless IDAT is no frame at all."""
    picture = np.asarray(scene())
    whole = zlib.compress(rows(picture))

    def frame(number: int, sequence: int) -> bytes:
        control = chunk(b"fcTL", struct.pack(">5I2H2B", sequence, 48, 32, 0, 0, 1, 10, 0, 0))
        pixels = struct.pack(">I", sequence + 1) + zlib.compress(rows(picture[::-1]))
        return control + chunk(b"fdAT", pixels) * number

    two, one = (chunk(b"acTL", struct.pack(">II", count, 0)) for count in (2, 1))
    single = b"".join(chunk(b"IDAT", whole[i : i + 1]) for i in range(len(whole)))
    yield from group(good, "png", {
        "animation": png(picture, before=two + frame(0, 0), after=frame(1, 1)),
        "static image apart": png(picture, before=one, after=frame(1, 0)),
        "idat of single bytes": file(ihdr(), single),
        "empty idats": file(ihdr(), chunk(b"IDAT"), chunk(b"IDAT", whole), chunk(b"IDAT")),
        "stored deflate": file(ihdr(), idat(rows(picture), 0)),
        "private chunk": png(picture, before=chunk(b"prVt", b"x" * 99)),
    }, picture)  # fmt: skip
    for kind in range(1, 5):
        # Section 9: filters 1 to 4 of a flat picture are its first sample and then nothing.
        data = file(ihdr(6, 4, 8, GRAY), idat((bytes([kind]) + bytes(6)) * 4))
        yield good(f"png filter {kind}", data, np.zeros((4, 6)))
    gray = np.zeros((4, 4), np.uint8)
    yield from group(bad, "png", {
        "unknown critical chunk first": SIGNATURE + chunk(b"ABCD") + ihdr(),
        "palette missing": png(gray, INDEXED),
        "colour type 5": png(picture, 5),
        "rgb of 4 bits": png(picture // 16, RGB, 4),
        "3 bits": png(gray, GRAY, 3),
        "alpha of 4 bits": png(np.zeros((4, 4, 4), np.uint8), RGBA, 4),
        "gray of no bits": png(gray, GRAY).replace(ihdr(4, 4, 8, GRAY), ihdr(4, 4, 0, GRAY)),
    })  # fmt: skip


def _damaged() -> Iterator[Case]:
    picture = np.asarray(scene())
    raw = rows(picture)
    whole, short, end = idat(raw), zlib.compress(raw), chunk(b"IEND")
    yield from group(bad, "png", {
        "wider rows than there are": file(ihdr(49), whole),
        "no width": file(ihdr(0), whole),
        "no height": file(ihdr(48, 0), whole),
        "unknown filter method": file(ihdr(method=1), whole),
        "unknown interlacing": file(ihdr(adam7=2), whole),
        "a wrong checksum": file(ihdr()[:-1] + b"\0", whole),
        "a header of 12 bytes": file(chunk(b"IHDR", ihdr()[8:20]), whole),
        "no header": file(whole),
        "no idat": file(ihdr()),
        "idat of noise": file(ihdr(), chunk(b"IDAT", np.random.default_rng(0).bytes(200))),
        "idat damaged": file(ihdr(), chunk(b"IDAT", short[:200] + b"\xaa" * 40 + short[240:])),
        "idat cut but sealed": file(ihdr(), chunk(b"IDAT", short[: len(short) // 2])),
        "unknown filter": file(ihdr(), idat(b"\7" + raw[1:])),
    })  # fmt: skip
    # As browsers do: missing rows are black.
    yield Case("png more rows than there are", file(ihdr(48, 33), whole))
    yield good("png fewer rows than there are", file(ihdr(48, 30), whole), picture[:30])
    # All rows are there, whatever ought to follow them.
    yield good("png without iend", SIGNATURE + ihdr() + whole, picture)
    endless = b"\x7f\xff\xff\xff" + whole[4:] + end
    yield good("png idat longer than the file", SIGNATURE + ihdr() + endless, picture)
    # 11.2.2: an index beyond the palette is an error; libpng and browsers show black.
    indices, black = np.full((4, 4), 200, np.uint8), np.zeros((4, 4, 3))
    indices[0], black[0] = 1, (4, 5, 6)
    data = png(indices, INDEXED, before=chunk(b"PLTE", b"\1\2\3\4\5\6"))
    yield good("png index beyond its palette", data, black)


def _ancillary() -> Iterator[Case]:
    """13.2: a decoder may skip damaged ancillary chunks."""
    picture = np.asarray(scene())
    wrong = chunk(b"tEXt", b"Title\0text")[:-1] + b"\0"
    yield from group(good, "png text", {
        "before the pixels with a wrong checksum": png(picture, before=wrong),
        "behind the pixels with a wrong checksum": png(picture, after=wrong),
    }, picture)  # fmt: skip
    yield from group(good, "png", {name: png(picture, before=chunk(*parts)) for name, parts in {
        "ztxt of junk": (b"zTXt", b"Title\0\0junk"),
        "itxt of junk": (b"iTXt", b"Title\0\1\0\0\0junk"),
        "text without a keyword": (b"tEXt",),
        "empty time": (b"tIME",),
        "empty physical size": (b"pHYs",),
        "empty gamma": (b"gAMA",),
        "empty chromaticities": (b"cHRM",),
        "empty animation": (b"acTL",),
        "animation of no frames": (b"acTL", bytes(8)),
        "animation of two billion frames": (b"acTL", b"\x7f\xff\xff\xff" * 2),
        "transparency cut short": (b"tRNS", b"\0\1"),
        # Image generators write their whole workflow into a caption.
        "caption of 2 MiB": (b"zTXt", b"workflow\0\0" + zlib.compress(b"{}" * 2**20)),
        # Printers' profiles have 2 MB.
        "profile of 2 MiB of junk": (b"iCCP", b"icc\0\0" + zlib.compress(b"junk" * 2**19)),
    }.items()}, picture)  # fmt: skip
    yield from group(good, "png of 10000", {
        "private chunks": png(picture, before=chunk(b"prVt", b"x") * 10_000),
        "text chunks": png(picture, before=chunk(b"tEXt", b"a\0b") * 10_000),
    }, picture)  # fmt: skip
    noise = np.random.default_rng(4).bytes(500_000)
    yield good("png profile of 500 kB of noise", saved(scene(), "PNG", icc_profile=noise), scene())


def _claims() -> Iterator[Case]:
    """Sizes in the header. 7071x7071 is the last square below 50,000,000 pixels."""
    few = idat(bytes(999))
    most = 2**31 - 1
    for size in ((7072, 7072), (10_000, 10_000), (most, most), (most, 1), (50_000_001, 1)):
        yield too_large("png claims {}x{}".format(*size), file(ihdr(*size), few))
    yield bad("png claims 7071x7071", file(ihdr(7071, 7071), few))
    data = file(ihdr(7071, 7071, 1, GRAY), idat(bytes(7071 * (1 + 884))))
    yield Case("png 7071x7071", data)
    tail = bytes(16 * 2**20 - len(written("png")))
    yield good("png of 16 MiB", written("png") + tail, scene())
    yield too_large("png of 16 MiB and a byte", written("png") + tail + b"\0")


def _bombs() -> Iterator[Case]:
    """64 MiB that compress to 64 kB; more would only take longer to build."""
    picture, bomb = np.asarray(scene()), bytes(64 * 2**20)
    small = zlib.compress(bomb, 9)
    # The pixels are sound. The memory of the decode process is limited.
    yield from group(Case, "png bomb in", {
        "ztxt": png(picture, before=chunk(b"zTXt", b"Title\0\0" + small)),
        "itxt": png(picture, before=chunk(b"iTXt", b"Title\0\1\0\0\0" + small)),
        "iccp": png(picture, before=chunk(b"iCCP", b"icc\0\0" + small)),
    })  # fmt: skip
    data = file(ihdr(), idat(rows(picture) + bomb, 9))
    yield good("png bomb behind its rows", data, picture)
