"""Files that mean harm: claims, bombs, crowds, and metadata without end."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.corpus.case import Case, bad, good, saved, scene, too_large
from tests.corpus.containers import written
from tests.corpus.encoders import (
    BLACK_IS_ZERO,
    COMPRESSION,
    EOI,
    GRAY,
    HEIGHT,
    LONG,
    PNG_SIGNATURE,
    RGB,
    ROWS,
    SHORT,
    SOI,
    STRIP_BYTES,
    STRIP_OFFSETS,
    TILE_BYTES,
    TILE_LENGTH,
    TILE_OFFSETS,
    TILE_WIDTH,
    TRUECOLOUR,
    UNDEFINED,
    WIDTH,
    Field,
    Frame,
    bmp,
    chunk,
    directory,
    exif,
    gif,
    ihdr,
    png,
    riff,
    scanlines,
    segment,
    segments,
    sos,
    tiff,
    tiff_header,
    u24,
    vp8x,
    webp,
)

MEGABYTES_16 = 16 * 2**20
# Compresses to 64 kB; more would only take longer to build.
BOMB = bytes(64 * 2**20)


def cases() -> Iterator[Case]:
    yield from _bytes()
    yield from _claims()
    yield from _bombs()
    yield from _many()
    yield from _metadata()
    yield from _strange_bmp()


def _bytes() -> Iterator[Case]:
    yield Case("nothing", b"", 400, "EmptyBody")
    tail = bytes(MEGABYTES_16 - len(written("png")))
    yield good("png of 16 MiB", written("png") + tail, scene())
    yield too_large("png of 16 MiB and a byte", written("png") + tail + b"\0")


def _claims() -> Iterator[Case]:
    """Sizes in headers. 7071x7071 is the last square below 50,000,000 pixels."""
    for width, height in ((7072, 7072), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (50_000_001, 1)):
        data = PNG_SIGNATURE + ihdr(width, height) + chunk(b"IDAT", zlib.compress(bytes(999)))
        yield too_large(f"png claims {width}x{height}", data + chunk(b"IEND"))
    header = PNG_SIGNATURE + ihdr(7071, 7071, 1, GRAY)
    rows = zlib.compress(bytes(7071 * (1 + 884)))
    yield Case("png 7071x7071", header + chunk(b"IDAT", rows) + chunk(b"IEND"))
    header = PNG_SIGNATURE + ihdr(7071, 7071)
    yield bad("png claims 7071x7071", header + chunk(b"IDAT", zlib.compress(bytes(999))))
    frame = b"\1\x11\0"
    for marker, name in ((0xC0, "jpeg"), (0xC2, "jpeg progressive")):
        for side in (7072, 65535):
            data = SOI + segment(marker, struct.pack(">BHHB", 8, side, side, 1) + frame)
            yield too_large(f"{name} claims {side}x{side}", data + sos([1]) + bytes(99) + EOI)
    for side in (7072, 65535):
        grid = np.zeros((2, 2), int)
        yield too_large(f"gif screen of {side}x{side}", gif(side, side, [Frame(grid)], bytes(6)))
        wide = bytearray(gif(2, 2, [Frame(grid)], bytes(6)))
        at = wide.index(b",", 13)
        wide[at + 5 : at + 9] = struct.pack("<HH", side, side)
        yield too_large(f"gif frame of {side}x{side}", bytes(wide))
    for width, height in ((7072, 7072), (2**31 - 1, 2**31 - 1), (30000, -30000), (30000, -(2**31))):
        yield too_large(f"bmp claims {width}x{height}", bmp(width, height, 24, bytes(99)))
    yield too_large("bmp claims 65535x65535 in os/2", bmp(65535, 65535, 24, bytes(99), header=12))
    gray = np.zeros((4, 4, 1), np.uint8)
    for big in (False, True):
        for side in (7072, 2**32 - 1):
            fields: dict[int, Field] = {WIDTH: (LONG, [side]), HEIGHT: (LONG, [side])}
            data = tiff(gray, BLACK_IS_ZERO, big=big, fields=fields)
            yield too_large(f"{'big' * big}tiff claims {side}x{side}", data)
    lossless = written("webp lossless")
    for side in (7072, 16384, 2**24):
        still = webp(vp8x(side, side, 0), lossless[12:])
        yield too_large(f"webp canvas of {side}x{side}", still)
        place = u24(0) * 2 + u24(47) + u24(31) + u24(100) + b"\0"
        anim = riff(b"ANIM", bytes(6)) + riff(b"ANMF", place + lossless[12:])
        moving = webp(vp8x(side, side, 2), anim)
        yield too_large(f"webp animated canvas of {side}x{side}", moving)
    # RFC 9649, 3.4: 14 bits for each side, less one; RFC 6386, 9.1: 14 bits for each side.
    sides = 16383 | 16383 << 14
    yield too_large("webp lossless claims 16384x16384", webp(
        riff(b"VP8L", b"\x2f" + struct.pack("<I", sides) + lossless[25:])))  # fmt: skip
    lossy = written("webp lossy")
    yield too_large("webp lossy claims 16383x16383", lossy[:26] + b"\xff\x3f\xff\x3f" + lossy[30:])
    avif = written("avif")
    at = avif.index(b"ispe") + 8
    for side in (7072, 10_000, 100_000, 2**32 - 1):
        data = avif[:at] + struct.pack(">II", side, side) + avif[at + 8 :]
        yield too_large(f"avif claims {side}x{side}", data)
    # libavif, and with it every browser, stretches what there is to what was claimed.
    yield Case("avif claims 64x64", avif[:at] + struct.pack(">II", 64, 64) + avif[at + 8 :])
    yield bad("avif claims 0x0", avif[:at] + bytes(8) + avif[at + 8 :])


def _bombs() -> Iterator[Case]:
    """What grows when it is decompressed."""
    picture = np.asarray(scene())
    small = zlib.compress(BOMB, 9)
    for name, body in {
        "ztxt": chunk(b"zTXt", b"Title\0\0" + small),
        "itxt": chunk(b"iTXt", b"Title\0\1\0\0\0" + small),
        "iccp": chunk(b"iCCP", b"icc\0\0" + small),
    }.items():
        # Reading on and refusing are both sound; what is not is to hold 64 MiB for a caption.
        yield bad(f"png bomb in {name}", png(picture, 8, TRUECOLOUR, before=body))
    caption = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"{}" * 2**20))
    # Generators of pictures write their whole workflow into them: a picture all the same.
    yield good("png caption of 2 MiB", png(picture, 8, TRUECOLOUR, before=caption), picture)
    start = PNG_SIGNATURE + ihdr(48, 32)
    data = chunk(b"IDAT", zlib.compress(scanlines(picture, 8) + BOMB, 9))
    yield good("png bomb behind its rows", start + data + chunk(b"IEND"), picture)
    gray = np.zeros((4, 4, 1), np.uint8)
    deflate: dict[int, Field] = {COMPRESSION: (SHORT, [8])}
    yield good(
        "tiff bomb in a strip", tiff(gray, BLACK_IS_ZERO, data=small, fields=deflate), gray[..., 0]
    )
    for side in (65536, 2**31 - 16):
        tiled: dict[int, Field] = {
            TILE_WIDTH: (LONG, [side]), TILE_LENGTH: (LONG, [side]),
            TILE_OFFSETS: (LONG, [8]), TILE_BYTES: (LONG, [len(small)]),
            STRIP_OFFSETS: None, STRIP_BYTES: None, ROWS: None,
        }  # fmt: skip
        data = tiff(gray, BLACK_IS_ZERO, data=small, fields={**deflate, **tiled})
        yield bad(f"tiff tile of {side}x{side}", data)


def _many() -> Iterator[Case]:
    """Thousands of what one of is usual."""
    parts = segments(written("jpeg progressive"))
    first = next(i for i, part in enumerate(parts) if part[1] == 0xDA)
    for count in (101, 3001):
        more = count - sum(part[1] == 0xDA for part in parts)
        again = parts[: first + 1] + [parts[first]] * more + parts[first + 1 :]
        yield too_large(f"jpeg of {count} scans", b"".join(again))
    # Large enough that each scan costs: 7000x7000 of blocks that say nothing.
    frame = segment(0xC2, struct.pack(">BHHB", 8, 7000, 7000, 1) + b"\1\x11\0")
    table = segment(0xDB, b"\0" + bytes([8] * 64))
    table += segment(0xC4, b"\0" + bytes([1]) + bytes(15) + b"\0")
    scan = sos([1], b"\0\0\0") + bytes(8)
    for count in (21, 100, 3001):
        data = SOI + table + frame + scan * count + EOI
        yield too_large(f"jpeg of 7000x7000 and {count} scans", data)
    yield Case("jpeg of 7000x7000 and 20 scans", SOI + table + frame + scan * 20 + EOI)
    jpeg = written("jpeg")
    comments = segment(0xFE, b"x") * 20_000
    yield good("jpeg of 20000 comments", jpeg[:2] + comments + jpeg[2:], scene(), 8)
    picture = np.asarray(scene())
    for name, one in (("private", chunk(b"prVt", b"x")), ("text", chunk(b"tEXt", b"a\0b"))):
        data = png(picture, 8, TRUECOLOUR, before=one * 10_000)
        yield good(f"png of 10000 {name} chunks", data, picture)
    grid = np.arange(64).reshape(8, 8) % 4
    colours = np.array([[9, 8, 7], [60, 50, 40], [99, 0, 99], [255, 255, 0]], np.uint8)
    frames = [Frame(grid)] * 5000
    yield good("gif of 5000 frames", gif(8, 8, frames, colours.tobytes()), colours[grid])
    text = (b"!\xfe\1x\0") * 100_000
    data = gif(8, 8, [Frame(grid)], colours.tobytes(), extensions=text)
    yield good("gif of 100000 comments", data, colours[grid])
    moving = webp(vp8x(48, 32, 2), riff(b"ANIM", bytes(6)), *[riff(
        b"ANMF", u24(0) * 2 + u24(47) + u24(31) + u24(100) + b"\0" + written("webp lossless")[12:]
    )] * 1000)  # fmt: skip
    yield good("webp of 1000 frames", moving, picture)
    body = picture.tobytes()
    fields: dict[int, Field] = {
        **{256: (LONG, [48]), 257: (LONG, [32]), 258: (SHORT, [8] * 3), 259: (SHORT, [1])},
        **{262: (SHORT, [RGB]), 277: (SHORT, [3]), 278: (LONG, [32]), 279: (LONG, [len(body)])},
    }
    for big, count in ((False, 60_000), (True, 200_000)):
        start = 16 if big else 8
        fields[STRIP_OFFSETS] = (LONG, [start])
        at = start + len(body)
        data = tiff_header(at, big=big) + body + _crowded(fields, count, at, big)
        yield good(f"{'big' * big}tiff of {count} fields", data, picture)
    yield bad("bigtiff claims 2**60 fields", tiff_header(16, big=True) + b"\0" * 7 + b"\x10" + body)
    yield bad("tiff claims 65535 fields", tiff_header(8) + b"\xff\xff" + bytes(400))
    strips: dict[int, Field] = {
        STRIP_OFFSETS: (LONG, [8] * 100_000), STRIP_BYTES: (LONG, [48 * 3] * 100_000),
        ROWS: (LONG, [1]),
    }  # fmt: skip
    yield good(
        "tiff of 100000 strips",
        tiff(picture[:1].repeat(32, 0), RGB, fields=strips),
        picture[:1].repeat(32, 0),
    )


def _crowded(fields: dict[int, Field], spare: int, at: int, big: bool) -> bytes:
    """``directory`` with ``spare`` more entries, all of them of the last tag there is."""
    entry = struct.pack("<HHQQ" if big else "<HHII", 65535, SHORT, 1, 1)
    whole = directory(fields, at + spare * len(entry), big=big)
    count = struct.pack("<Q" if big else "<H", len(fields) + spare)
    table = len(count) + len(fields) * len(entry)
    return count + whole[len(count) : table] + entry * spare + whole[table:]


def _metadata() -> Iterator[Case]:
    jpeg, picture = written("jpeg"), np.asarray(scene())

    def app(marker: int, data: bytes) -> bytes:
        return jpeg[:2] + segment(marker, data) + jpeg[2:]

    yield good("jpeg exif of 64 kB", app(0xE1, exif(1) + bytes(65_000)), scene(), 8)
    yield good("jpeg exif of 64 kB of ff", app(0xE1, b"Exif\0\0" + b"\xff" * 65_000), scene(), 8)
    # 3000 directories, each of which points to the next, and the last to the first.
    chain = b"".join(
        struct.pack(
            "<HHHIII", 1, 0x8769, LONG, 1, 8 + 18 * ((i + 1) % 3000), 8 + 18 * ((i + 2) % 3000)
        )
        for i in range(3000)
    )
    deep = b"Exif\0\0" + tiff_header(8) + chain
    yield good("jpeg exif of 3000 directories in a circle", app(0xE1, deep), scene(), 8)
    data = png(picture, 8, TRUECOLOUR, before=chunk(b"eXIf", deep[6:]))
    yield good("png exif of 3000 directories in a circle", data, picture)
    profile = np.random.default_rng(3).bytes(65_000)
    many = b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([i, 60]) + profile) for i in range(1, 61)
    )
    yield good("jpeg profile of 4 MB of noise", jpeg[:2] + many + jpeg[2:], scene(), 8)
    noise = np.random.default_rng(4).bytes(500_000)
    data = saved(scene(), "PNG", icc_profile=noise)
    yield good("png profile of 500 kB of noise", data, scene())
    large = zlib.compress(b"junk" * 2**19)
    data = png(picture, 8, TRUECOLOUR, before=chunk(b"iCCP", b"icc\0\0" + large))
    # Printers' profiles have 2 MB.
    yield good("png profile of 2 MiB of junk", data, picture)
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + b"<a>" * 20_000
    yield good("jpeg xmp of 20000 open tags", app(0xE1, xmp), scene(), 8)
    entities = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'
    data = app(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + entities)
    yield good("jpeg xmp of entities", data, scene(), 8)
    for name, resources in {
        "of noise": np.random.default_rng(5).bytes(999),
        "that ends early": b"8BIM\x04\x04\0\0\x7f\xff\xff\xff",
    }.items():
        block = app(0xED, b"Photoshop 3.0\0" + resources)
        yield good(f"jpeg photoshop block {name}", block, scene(), 8)
    yield good("mpo index of noise", app(0xE2, b"MPF\0" + bytes(range(200))), scene(), 8)
    yield good("jpeg jfif cut short", SOI + segment(0xE0, b"JFIF\0") + jpeg[2:], scene(), 8)
    yield good("jpeg adobe cut short", app(0xEE, b"Adobe"), scene(), 8)
    fields: dict[int, Field] = {700: (UNDEFINED, list(b"<x" * 999)), 34665: (LONG, [8])}
    yield good("tiff exif directory of pixels", tiff(picture, RGB, fields=fields), picture)


def _strange_bmp() -> Iterator[Case]:
    """BI_RLE8 (1): runs past the edge, jumps outside, and a bitmap that ends early."""
    palette = b"".join(bytes([i, i // 2, 255 - i, 0]) for i in range(256))
    colours = np.array([[255 - i, i // 2, i] for i in range(256)], np.uint8)

    def rle(data: bytes) -> bytes:
        return bmp(8, 4, 8, data, palette=palette, compression=1)

    row = b"\x08\x05\0\0"
    expected = np.broadcast_to(colours[5], (4, 8, 3))
    yield good("bmp rle run past the edge", rle(b"\xff\x05\0\0" * 4 + b"\0\1"), expected)
    yield bad("bmp rle cut", rle(row * 2))
    for name, data in {
        "jump outside": b"\0\2\xff\xff" + row,
        "rows too many": row * 500 + b"\0\1",
        "absolute run outside": b"\0\xff" + bytes(255) + b"\0\0\1",
        "end at once": b"\0\1",
    }.items():
        # What is not drawn has no colour that the format names: only the code is expected.
        yield Case(f"bmp rle {name}", rle(data))
    yield bad("bmp palette of two billion", bmp(8, 4, 8, bytes(32), palette=palette, colors=2**31))
