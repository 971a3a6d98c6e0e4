"""Files cut short, damaged, or at odds with their own headers."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.corpus.case import Case, bad, good, scene, too_large
from tests.corpus.containers import WAYS, written
from tests.corpus.encoders import (
    BITS,
    BLACK_IS_ZERO,
    COMPRESSION,
    EOI,
    GRAY,
    HEIGHT,
    INDEXED,
    PHOTOMETRIC,
    PNG_SIGNATURE,
    RGB,
    SAMPLES,
    STRIP_BYTES,
    STRIP_OFFSETS,
    TRUECOLOUR,
    WIDTH,
    Component,
    Field,
    Frame,
    bmp,
    chunk,
    gif,
    ihdr,
    jpeg,
    png,
    riff,
    scanlines,
    segment,
    segments,
    tiff,
    vp8x,
    webp,
)


def cases() -> Iterator[Case]:
    yield from _cut()
    yield from _png()
    yield from _jpeg()
    yield from _webp_and_avif()
    yield from _gif_and_bmp()
    yield from _tiff()


def _cut() -> Iterator[Case]:
    for name in WAYS:
        data = written(name)
        for kept in (0.5, 0.95):
            yield bad(f"{name} cut at {kept:.0%}", data[: int(len(data) * kept)])
        # Enough to lose samples of the last rows, whatever a format has behind them.
        yield bad(f"{name} without its last 30 bytes", data[:-30])
        noise = np.random.default_rng(len(data)).bytes(500)
        yield bad(f"{name} of 12 bytes and noise", data[:12] + noise)
        yield bad(f"{name} of 12 bytes", data[:12])
    rows = segments(written("jpeg"))
    yield bad("jpeg without any scan", b"".join(rows[:-2]) + EOI)
    yield bad("jpeg cut behind its scan's header", b"".join(rows[:-2]) + rows[-2][:14])


def _png() -> Iterator[Case]:
    picture = np.asarray(scene())
    whole = chunk(b"IDAT", zlib.compress(scanlines(picture, 8)))
    end = chunk(b"IEND")
    for name, header in {
        "more rows than there are": ihdr(48, 33),
        "wider rows than there are": ihdr(49, 32),
        "no width": ihdr(0, 32),
        "no height": ihdr(48, 0),
        "unknown filter method": _ihdr(filtering=1),
        "unknown interlacing": _ihdr(interlacing=2),
        "a wrong checksum": ihdr(48, 32)[:-1] + b"\0",
        "a header of 12 bytes": chunk(b"IHDR", ihdr(48, 32)[8:20]),
        "no header": b"",
    }.items():
        yield bad(f"png {name}", PNG_SIGNATURE + header + whole + end)
    start = PNG_SIGNATURE + ihdr(48, 32)
    short = zlib.compress(scanlines(picture, 8))
    for name, body in {
        "no idat": b"",
        "idat of noise": chunk(b"IDAT", np.random.default_rng(0).bytes(200)),
        "idat damaged": chunk(b"IDAT", short[:200] + b"\xaa" * 40 + short[240:]),
        "idat cut but sealed": chunk(b"IDAT", short[: len(short) // 2]),
        "unknown filter": chunk(b"IDAT", zlib.compress(b"\7" + scanlines(picture, 8)[1:])),
    }.items():
        yield bad(f"png {name}", start + body + end)
    fewer = PNG_SIGNATURE + ihdr(48, 30) + whole + end
    yield good("png fewer rows than there are", fewer, picture[:30])
    # All rows are there, whatever ought to follow them.
    yield good("png without iend", start + whole, picture)
    endless = b"\x7f\xff\xff\xff" + whole[4:]
    yield good("png idat longer than the file", start + endless + end, picture)
    # PNG, 13.2: what is ancillary may be passed over where it is damaged.
    text = chunk(b"tEXt", b"Title\0text")
    for place, data in (
        ("before", start + text[:-1] + b"\0" + whole + end),
        ("behind", start + whole + text[:-1] + b"\0" + end),
    ):
        yield good(f"png text {place} the pixels with a wrong checksum", data, picture)
    for name, body in {
        "ztxt of junk": chunk(b"zTXt", b"Title\0\0junk"),
        "itxt of junk": chunk(b"iTXt", b"Title\0\1\0\0\0junk"),
        "text without a keyword": chunk(b"tEXt", b""),
        "empty time": chunk(b"tIME"),
        "empty physical size": chunk(b"pHYs"),
        "empty gamma": chunk(b"gAMA"),
        "empty chromaticities": chunk(b"cHRM"),
        "empty animation": chunk(b"acTL"),
        "animation of no frames": chunk(b"acTL", bytes(8)),
        "animation of two billion frames": chunk(b"acTL", b"\x7f\xff\xff\xff" * 2),
        "transparency cut short": chunk(b"tRNS", b"\0\1"),
    }.items():
        yield good(f"png {name}", start + body + whole + end, picture)
    indices = np.full((4, 4, 1), 200, np.uint8)
    indices[0] = 1
    entries = chunk(b"PLTE", b"\1\2\3\4\5\6")
    # PNG, 11.2.2: an index beyond the palette is an error; libpng and browsers show it black.
    black = np.zeros((4, 4, 3), np.uint8)
    black[0] = 4, 5, 6
    yield good("png index beyond its palette", png(indices, 8, INDEXED, before=entries), black)
    yield bad(
        "png gray of no bits", png(indices, 8, GRAY).replace(ihdr(4, 4, 8, 0), ihdr(4, 4, 0, 0))
    )


def _ihdr(filtering: int = 0, interlacing: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 32, 8, TRUECOLOUR, 0, filtering, interlacing))


def _jpeg() -> Iterator[Case]:
    whole = jpeg(24, 16, [Component(np.full((2, 3), 77))])
    parts = segments(whole)
    frame = next(part for part in parts if part[1] == 0xC0)
    scan = next(part for part in parts if part[1] == 0xDA)
    for name, other in {
        "no height": frame[:5] + b"\0\0" + frame[7:],
        "no width": frame[:7] + b"\0\0" + frame[9:],
        "12 bits": frame[:4] + b"\x0c" + frame[5:],
        "no components": segment(0xC0, frame[4:9] + b"\0"),
        "200 components": segment(0xC0, frame[4:9] + b"\xc8" + frame[10:] * 200),
        "sampling of nothing": frame[:11] + b"\0" + frame[12:],
        "sampling of five": frame[:11] + b"\x51" + frame[12:],
        "a table it has not": frame[:12] + b"\3",
        "hierarchical frame": b"\xff\xc5" + frame[2:],
        "two frames": frame + frame,
        "no frame": b"",
        "frame cut short": segment(0xC0, frame[4:9]),
        "segment longer than the file": b"\xff\xe0\xff\xff" + frame,
        "huffman table too full": segment(0xC4, b"\0" + b"\xff" * 16 + bytes(255)) + frame,
        "huffman table 9": segment(0xC4, b"\x09" + bytes(16)) + frame,
        "quantiser 9": segment(0xDB, b"\x09" + bytes(64)) + frame,
    }.items():
        yield bad(f"jpeg {name}", whole.replace(frame, other))
    for name, header in {
        "scan of another component": scan.replace(b"\1\1\0", b"\1\7\0", 1),
        "scan of no components": scan.replace(b"\1\1\0", b"\0\1\0", 1),
        "scan with another table": scan.replace(b"\1\1\0", b"\1\1\x33", 1),
    }.items():
        yield bad(f"jpeg {name}", whole.replace(scan, header))
    bare = b"".join(part for part in parts if part[1] != 0xDB)
    yield bad("jpeg without quantisers", bare)
    # T.81, B.2.5: a height of zero that a DNL segment behind the first scan makes good; no decoder
    # in use, browsers' included, reads it.
    lines = segment(0xDC, b"\0\x10")
    late = jpeg(24, 16, [Component(np.full((2, 3), 77))], after_scan=lines)
    yield bad("jpeg height in a dnl", late.replace(frame, frame[:5] + b"\0\0" + frame[7:]))
    yield good("jpeg with a spare dnl", late, np.full((16, 24), 77))
    # A webcam's MJPEG frame leaves out the tables of T.81, annex K.3.
    frame_alone = [part for part in segments(written("jpeg")) if part[1] != 0xC4]
    yield good("jpeg without huffman tables", b"".join(frame_alone), scene(), 8)
    # Damage inside a scan moves colours about; no decoder can tell, and all show what they have.
    data = bytearray(written("jpeg"))
    data[-300:-290] = b"\x12" * 10
    yield Case("jpeg damaged inside its scan", bytes(data))
    taller = frame[:5] + b"\0\x20" + frame[7:]
    yield Case("jpeg with more rows than its scan", whole.replace(frame, taller))
    # libjpeg, and with it every browser, goes on behind the length.
    endless = whole.replace(frame, b"\xff\xe0\0\0" + frame)
    yield good("jpeg segment of no length", endless, np.full((16, 24), 77))
    cut = written("jpeg")
    yield bad("jpeg cut in its last scan lines", cut[: -len(cut) // 20])
    yield bad("jpeg progressive cut in its last scan", written("jpeg progressive")[:-20])


def _webp_and_avif() -> Iterator[Case]:
    picture = scene()
    lossless, lossy = written("webp lossless"), written("webp lossy")
    body = lossless[12:]
    for name, data in {
        "riff too long": b"RIFF\xff\xff\xff\x7f" + lossless[8:],
        "riff too short": b"RIFF\x20\0\0\0" + lossless[8:],
        "no chunks": webp(),
        "canvas without a picture": webp(vp8x(48, 32, 0)),
        "canvas of another size": webp(vp8x(64, 64, 0), body),
        "animation of no frames": webp(vp8x(48, 32, 2), riff(b"ANIM", bytes(6))),
        "chunk too long": lossless[:16] + b"\xff\xff\xff\x7f" + lossless[20:],
        "lossless damaged": lossless[:40] + bytes(60) + lossless[100:],
        "lossless of another version": lossless[:24] + b"\xff" + lossless[25:],
        "lossy without its start code": lossy[:23] + b"\0\0\0" + lossy[26:],
        "lossy interframe": lossy[:20] + bytes([lossy[20] | 1]) + lossy[21:],
        "alpha of junk": webp(vp8x(48, 32, 16), riff(b"ALPH", b"\1junk"), lossy[12:]),
    }.items():
        yield bad(f"webp {name}", data)
    avif = written("avif")
    pixels = avif.index(b"mdat") + 4
    for name, data in {
        "no meta": avif[: avif.index(b"meta") - 4] + bytes(100),
        "meta of another name": avif.replace(b"meta", b"mete"),
        "no codec": avif.replace(b"av1C", b"av9C"),
        "items elsewhere": _after(avif, b"iloc", 14, b"\x7f\xff\xff\xff"),
        "box longer than the file": _after(avif, b"meta", -8, b"\x7f\xff\xff\xff"),
        "box of no length": _after(avif, b"meta", -8, b"\0\0\0\4"),
        "pixels of noise": avif[:pixels] + np.random.default_rng(1).bytes(len(avif) - pixels),
    }.items():
        yield bad(f"avif {name}", data)
    yield good("webp with a chunk cut behind its picture", lossless + b"EXIF\xff\xff", picture)


def _after(data: bytes, name: bytes, distance: int, value: bytes) -> bytes:
    """``data`` with ``value`` so many bytes behind the end of ``name``."""
    at = data.index(name) + len(name) + distance
    return data[:at] + value + data[at + len(value) :]


def _gif_and_bmp() -> Iterator[Case]:
    grid = np.arange(24 * 40).reshape(24, 40) % 16
    table = bytes(range(48))
    whole = gif(40, 24, [Frame(grid)], table)
    picture = np.frombuffer(table, np.uint8).reshape(16, 3)[grid]
    at = 6 + 7 + len(table) + 8  # the Image Descriptor
    for name, data in {
        "no frames": gif(40, 24, [], table),
        "code size 13": whole[: at + 10] + b"\x0d" + whole[at + 11 :],
        "frame taller than its data": whole[: at + 7] + b"\x30\0" + whole[at + 9 :],
        "frame of no width": whole[: at + 5] + b"\0\0" + whole[at + 7 :],
        "codes of noise": whole[: at + 12] + b"\xff" * 254 + b"\0;",
    }.items():
        yield bad(f"gif {name}", data)
    # Browsers grow the screen to a first frame that is larger.
    screen = gif(20, 12, [Frame(grid)], table)
    yield good("gif frame larger than its screen", screen, picture)
    pixels = bytes(range(96)) * 32
    # OS/2's header has no sign: this is 4,294,967,264 wide.
    yield too_large("bmp negative width", bmp(-32, 32, 24, pixels))
    for name, data in {
        "fewer rows than it says": bmp(32, 33, 24, pixels),
        "no width": bmp(0, 32, 24, pixels),
        "no height": bmp(32, 0, 24, pixels),
        "7 bits": bmp(32, 32, 7, pixels),
        "unknown compression": bmp(32, 32, 24, pixels, compression=9),
        "unknown header": bmp(32, 32, 24, pixels).replace(b"(\0\0\0", b")\0\0\0", 1),
        "pixels outside the file": _after(bmp(32, 32, 24, pixels), b"BM", 8, b"\xff\xff\xff\x7f"),
        "no masks": bmp(32, 32, 32, pixels * 2, compression=3, header=40, masks=(1, 2, 4)),
    }.items():
        yield bad(f"bmp {name}", data)


def _tiff() -> Iterator[Case]:
    gray = np.arange(24 * 40, dtype=np.uint8).reshape(24, 40, 1)
    every: dict[str, dict[int, Field]] = {
        "no width": {WIDTH: (4, [0])},
        "no height": {HEIGHT: (4, [0])},
        "width missing": {WIDTH: None},
        "pixels outside the file": {STRIP_OFFSETS: (4, [2**31])},
        "pixels missing": {STRIP_OFFSETS: None},
        "more rows than there are": {HEIGHT: (4, [2400])},
        "unknown photometric": {PHOTOMETRIC: (3, [999])},
        "unknown compression": {COMPRESSION: (3, [999])},
        "lzw of junk": {COMPRESSION: (3, [5])},
        "deflate of junk": {COMPRESSION: (3, [8])},
        "jpeg of junk": {COMPRESSION: (3, [7])},
        "fax of junk as gray": {COMPRESSION: (3, [4])},
        "bits of 200": {BITS: (3, [200])},
        "no bits": {BITS: (3, [0])},
        "no samples": {SAMPLES: (3, [0])},
        "65535 samples": {SAMPLES: (3, [65535])},
        "width of text": {WIDTH: (2, [0x31, 0x32, 0])},
    }
    for name, fields in every.items():
        yield bad(f"tiff {name}", tiff(gray, BLACK_IS_ZERO, fields=fields))
    uneven = tiff(np.zeros((4, 4, 3), np.uint8), RGB, fields={BITS: (3, [8, 8, 16])})
    yield bad("tiff uneven bits", uneven)
    # The strip's length says too much; what there is fills the picture.
    lying = tiff(gray, BLACK_IS_ZERO, fields={STRIP_BYTES: (4, [2**31])})
    yield good("tiff strip bytes of 2 GiB", lying, gray[..., 0])
