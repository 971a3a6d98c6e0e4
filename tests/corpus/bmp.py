"""BMP: every header, depth and compression of Windows and OS/2, damage and claims."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from tests.corpus.case import (
    Array,
    Case,
    H,
    W,
    bad,
    colours,
    good,
    group,
    on_white,
    packed,
    samples,
    shown,
    too_large,
)


def bmp(
    width: int,
    height: int,
    bits: int,
    data: bytes,
    *,
    palette: bytes = b"",
    header: int = 40,
    compression: int = 0,
    masks: Sequence[int] = (),
    colors: int = 0,
) -> bytes:
    """``data`` as a BMP; a negative height stores the top row first.

    ``header`` is the size of BITMAPCOREHEADER (12), BITMAPINFOHEADER (40), OS/2 2 (64), V4 (108)
    or V5 (124).
    """
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        sizes = (header, width, height, 1, bits, compression, len(data), 0, 0, colors, 0)
        info = struct.pack("<IiiHHIIiiII", *sizes) + struct.pack(f"<{len(masks)}I", *masks)
        # The masks follow the smallest header and lie inside the larger ones.
        info = info if header == 40 else info.ljust(header, b"\0")
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


def bmp_rows(values: Array, bits: int = 8) -> bytes:
    """(rows, n) samples, the bottom row first -> bytes, each row padded to a multiple of four."""
    return b"".join(
        row + bytes(-len(row) % 4) for row in packed(values.reshape(len(values), -1), bits)
    )


def quads(table: Array, size: int = 4) -> bytes:
    """(n, 3) RGB as RGBQUADs, or as OS/2's RGBTRIPLEs of 3 bytes."""
    padded = np.pad(table[:, ::-1], ((0, 0), (0, size - 3)))
    return padded.tobytes()


def cases() -> Iterator[Case]:
    yield from _samples()
    yield from _run_lengths()
    yield from _damaged()


def _samples() -> Iterator[Case]:
    rgb, four = samples(3), samples(4)
    upward = bmp_rows(rgb[::-1, :, ::-1])
    for header in (12, 40, 64, 108, 124):
        for bits in (1, 4, 8):
            table, indices = colours(2**bits), samples(1, bits)
            palette = quads(table, 3 if header == 12 else 4)
            data = bmp(W, H, bits, bmp_rows(indices[::-1], bits), header=header, palette=palette)
            yield good(f"bmp {bits} bit header {header}", data, table[indices])
        data = bmp(W, H, 24, upward, header=header)
        yield good(f"bmp 24 bit header {header}", data, rgb)
    yield good("bmp top row first", bmp(W, -H, 24, bmp_rows(rgb[..., ::-1])), rgb)
    stored = bmp_rows(four[::-1][..., [2, 1, 0, 3]])
    # The fourth byte of BI_RGB is reserved, and not alpha.
    yield good("bmp 32 bit", bmp(W, H, 32, stored), four[..., :3])
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    data = bmp(W, H, 32, stored, header=124, compression=3, masks=masks)
    yield good("bmp 32 bit alpha", data, on_white(four), 1)
    for green, compression, masks16 in ((5, 0, ()), (6, 3, (0xF800, 0x7E0, 0x1F))):
        depths = (5, green, 5)
        parts = [samples(1, depth, i).astype(np.uint16) for i, depth in enumerate(depths)]
        word = parts[0] << (green + 5) | parts[1] << 5 | parts[2]
        stored = word[::-1].astype("<u2").tobytes()  # W is even: rows need no padding
        expected = np.dstack([shown(p, depth) for p, depth in zip(parts, depths, strict=True)])
        data = bmp(W, H, 16, stored, compression=compression, masks=masks16)
        yield good(f"bmp {10 + green} bit", data, expected, 1)
    table, indices = colours(256), samples() % 3
    few = bmp(W, H, 8, bmp_rows(indices[::-1]), palette=quads(table)[:12], colors=3)
    yield good("bmp palette of three", few, table[indices])


def _run_lengths() -> Iterator[Case]:
    """BI_RLE8 (1) and BI_RLE4 (2): pairs of a count and a value."""
    table, indices = colours(256), samples()
    for bits, values in ((8, indices), (4, indices // 16 // 2 * 2)):
        steps = (values[::-1] << (8 - bits)).astype(np.uint8)
        runs = b"".join(
            bytes(np.stack([steps[y] * 0 + 1, steps[y]], 1)) + b"\0\0" for y in range(H)
        )
        palette = quads(table[: 2**bits])
        data = bmp(W, H, bits, runs + b"\0\1", palette=palette, compression=3 - bits // 4)
        yield good(f"bmp rle {bits}", data, table[values])

    def rle(data: bytes) -> bytes:
        return bmp(8, 4, 8, data, palette=quads(table), compression=1)

    row = b"\x08\x05\0\0"
    flat = np.broadcast_to(table[5], (4, 8, 3))
    yield good("bmp rle run past the edge", rle(b"\xff\x05\0\0" * 4 + b"\0\1"), flat)
    # The colour of pixels that are not drawn is not defined: only the status is expected.
    yield from group(Case, "bmp rle", {
        "jump outside": rle(b"\0\2\xff\xff" + row),
        "rows too many": rle(row * 500 + b"\0\1"),
        "absolute run outside": rle(b"\0\xff" + bytes(255) + b"\0\0\1"),
    })  # fmt: skip
    yield from group(bad, "bmp rle", {"cut": rle(row * 2), "end at once": rle(b"\0\1")})


def _damaged() -> Iterator[Case]:
    pixels = bytes(range(96)) * 32
    whole = bmp(32, 32, 24, pixels)
    yield from group(bad, "bmp", {
        "fewer rows than it says": bmp(32, 33, 24, pixels),
        "no width": bmp(0, 32, 24, pixels),
        "no height": bmp(32, 0, 24, pixels),
        "7 bits": bmp(32, 32, 7, pixels),
        "unknown compression": bmp(32, 32, 24, pixels, compression=9),
        "unknown header": whole.replace(b"(\0\0\0", b")\0\0\0", 1),
        "pixels outside the file": whole[:10] + b"\xff\xff\xff\x7f" + whole[14:],
        "no masks": bmp(32, 32, 32, pixels * 2, compression=3, masks=(1, 2, 4)),
        "palette of two billion": bmp(8, 4, 8, bytes(32), palette=bytes(1024), colors=2**31),
    })  # fmt: skip
    # The width in the file is unsigned: 4,294,967,264.
    yield too_large("bmp negative width", bmp(-32, 32, 24, pixels))
    for width, height in ((7072, 7072), (2**31 - 1, 2**31 - 1), (30000, -30000), (30000, -(2**31))):
        yield too_large(f"bmp claims {width}x{height}", bmp(width, height, 24, bytes(99)))
    yield too_large("bmp claims 65535x65535 in os/2", bmp(65535, 65535, 24, bytes(99), header=12))
