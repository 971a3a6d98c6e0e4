"""TIFF: every kind of sample in both byte orders, and every way to lay them out."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

from tests.corpus.case import Case, bad, good, on_white, saved, scene
from tests.corpus.encoders import (
    BLACK_IS_ZERO,
    COLOR_MAP,
    COMPRESSION,
    EXTRA_SAMPLES,
    FILL_ORDER,
    INK,
    LONG,
    PALETTE,
    PREDICTOR,
    RGB,
    ROWS,
    SHORT,
    STRIP_BYTES,
    STRIP_OFFSETS,
    TILE_BYTES,
    TILE_LENGTH,
    TILE_OFFSETS,
    TILE_WIDTH,
    WHITE_IS_ZERO,
    YCBCR,
    Field,
    tiff,
)
from tests.corpus.levels import H, W, colours, from_ink, samples, shown


def cases() -> Iterator[Case]:
    yield from _gray()
    yield from _colour()
    yield from _layouts()


def _gray() -> Iterator[Case]:
    for order, mark in (("<", "ii"), (">", "mm")):
        for bits in (1, 2, 4, 8, 16):
            values = samples(1, bits)
            packing = bits if bits < 8 else 0
            expected = shown(values, bits)
            for photometric, name in ((BLACK_IS_ZERO, "gray"), (WHITE_IS_ZERO, "white is zero")):
                data = tiff(values, photometric, bits=packing, order=order)
                levels = expected if photometric else 255 - expected
                yield good(f"tiff {name} {bits} bit {mark}", data, levels, bits // 16)
        for bits in (8, 16):
            values = samples(2, bits)
            data = tiff(values, BLACK_IS_ZERO, order=order, fields={EXTRA_SAMPLES: (SHORT, [2])})
            expected = on_white(
                shown(values[..., :1], bits), values[..., 1].astype(float), 2**bits - 1
            )
            yield good(f"tiff gray alpha {bits} bit {mark}", data, expected, 1 + bits // 16)
        ramp = np.linspace(0, 1, H * W, dtype=np.float32).reshape(H, W, 1)
        rounded = np.round(ramp[..., 0] * 255)
        yield good(f"tiff float32 {mark}", tiff(ramp, BLACK_IS_ZERO, order=order), rounded, 1)
        dim = tiff(ramp / 4, BLACK_IS_ZERO, order=order)
        yield good(f"tiff float32 below a quarter {mark}", dim, np.round(ramp[..., 0] / 4 * 255), 1)
        wide = tiff(ramp * 400 - 100, BLACK_IS_ZERO, order=order)
        yield good(f"tiff float32 beyond 0 to 1 {mark}", wide, rounded, 1)
        # Half and double precision are of the format, but of no decoder that we have.
        for name in ("float16", "float64"):
            data = tiff(ramp.astype(name), BLACK_IS_ZERO, order=order)
            yield bad(f"tiff {name} {mark}", data)
        # From end to end of the type, so that nothing but its extremes can be the scale.
        for name, low, high in (
            ("int16", -(2**15), 2**15 - 1),
            ("int32", -(2**31), 2**31 - 1),
            ("uint32", 0, 2**32 - 1),
        ):
            steps = np.round(low + ramp.astype(np.float64) * (high - low)).astype(name)
            yield good(f"tiff {name} {mark}", tiff(steps, BLACK_IS_ZERO, order=order), rounded, 1)
        small = tiff(samples(1, 16).astype(np.int32), BLACK_IS_ZERO, order=order)
        yield good(f"tiff int32 of 16 bits {mark}", small, shown(samples(1, 16), 16), 1)
    for odd in (np.nan, np.inf, -np.inf, np.float32(3e38)):
        holed = ramp.copy()
        holed[3, 4] = odd
        yield Case(f"tiff float32 with {odd:g}", tiff(holed, BLACK_IS_ZERO))
    inverse = tiff(1 - ramp, WHITE_IS_ZERO)
    yield good("tiff float32 white is zero", inverse, rounded, 1)
    values = samples(1, 12)
    yield good("tiff gray 12 bit", tiff(values, BLACK_IS_ZERO, bits=12), shown(values, 12), 1)


def _colour() -> Iterator[Case]:
    for order, mark in (("<", "ii"), (">", "mm")):
        for bits in (8, 16):
            colour, four = samples(3, bits), samples(4, bits)
            data = tiff(colour, RGB, order=order)
            yield good(f"tiff rgb {bits} bit {mark}", data, shown(colour, bits), bits // 16)
            alpha = four[..., 3].astype(float)
            plain = shown(four[..., :3], bits)
            expected = on_white(plain, alpha, 2**bits - 1)
            data = tiff(four, RGB, order=order, fields={EXTRA_SAMPLES: (SHORT, [2])})
            yield good(f"tiff rgba {bits} bit {mark}", data, expected, 1 + bits // 16)
            data = tiff(four, RGB, order=order, fields={EXTRA_SAMPLES: (SHORT, [0])})
            yield good(f"tiff rgb and a spare {bits} bit {mark}", data, plain, bits // 16)
            # Associated alpha: colours are stored times alpha, and white shows through as it is.
            mixed = four.copy()
            mixed[..., :3] = np.round(four[..., :3] * (alpha / (2**bits - 1))[..., None])
            data = tiff(mixed, RGB, order=order, fields={EXTRA_SAMPLES: (SHORT, [1])})
            yield good(f"tiff associated alpha {bits} bit {mark}", data, expected, 2 + bits // 16)
            data = tiff(four, INK, order=order)
            yield good(f"tiff cmyk {bits} bit {mark}", data, from_ink(shown(four, bits)), 2)
    for bits in (1, 2, 4, 8):
        palette, indices = colours(2**bits), samples(1, bits)
        # TIFF 6.0, page 37: all the reds, then the greens, then the blues, of 16 bits.
        entries = (palette.T.astype(int) * 257).ravel().tolist()
        packing = bits if bits < 8 else 0
        data = tiff(indices, PALETTE, bits=packing, fields={COLOR_MAP: (SHORT, entries)})
        yield good(f"tiff palette {bits} bit", data, palette[indices[..., 0]])
    pair = samples(2)
    pair[..., 0] = np.round(pair[..., 0] * (pair[..., 1] / 255))
    expected = pair[..., 0].astype(int) + 255 - pair[..., 1]
    data = tiff(pair, BLACK_IS_ZERO, fields={EXTRA_SAMPLES: (SHORT, [1])})
    yield good("tiff gray associated alpha", data, expected, 2)
    yield bad("tiff rgb float32", tiff((samples(3) / 255).astype(np.float32), RGB))
    picture = scene()
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    in_lab = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
    assert in_lab is not None
    del in_lab.info["icc_profile"]  # has the time of its making in it
    # Not the picture itself: in its dark corners 8-bit Lab cannot tell colours apart.
    back = ImageCms.profileToProfile(in_lab, lab, srgb, outputMode="RGB")
    assert back is not None
    yield good("tiff lab", saved(in_lab, "TIFF"), back, 1)
    yield good("tiff lab lzw", saved(in_lab, "TIFF", compression="tiff_lzw"), back, 1)
    yield good("tiff ycbcr", tiff(np.asarray(picture.convert("YCbCr")), YCBCR, fields={
        530: (SHORT, [1, 1]),  # YCbCrSubSampling: every sample has its own chroma
    }), picture, 3)  # fmt: skip


def _layouts() -> Iterator[Case]:
    colour, deep, gray = samples(3), samples(3, 16), samples(1)
    yield good("tiff planes apart", tiff(colour, RGB, planar=True), colour)
    yield good("tiff planes apart in strips", tiff(colour, RGB, planar=True, strips=4), colour)
    yield good("tiff planes apart 16 bit", tiff(deep, RGB, planar=True), shown(deep, 16), 1)
    yield good("tiff strips", tiff(colour, RGB, strips=8), colour)
    yield good("tiff strips mm 16 bit", tiff(deep, RGB, strips=8, order=">"), shown(deep, 16), 1)
    yield good("bigtiff", tiff(colour, RGB, big=True), colour)
    yield good("bigtiff mm", tiff(colour, RGB, big=True, order=">"), colour)
    yield good("tiff rows of all", tiff(colour, RGB, fields={ROWS: (LONG, [2**32 - 1])}), colour)
    yield good("tiff without rows", tiff(colour, RGB, fields={ROWS: None}), colour)
    yield good("tiff without strip bytes", tiff(colour, RGB, fields={STRIP_BYTES: None}), colour)
    reversed_bits = bytes(int(f"{byte:08b}"[::-1], 2) for byte in gray.tobytes())
    data = tiff(gray, BLACK_IS_ZERO, data=reversed_bits, fields={FILL_ORDER: (SHORT, [2])})
    yield good("tiff fill order 2", data, gray[..., 0])
    deflate: dict[int, Field] = {COMPRESSION: (SHORT, [8])}
    for name, source in (("8 bit", colour), ("16 bit", deep)):
        # TIFF 6.0, section 14: differences to the sample of the same colour at the left.
        left = np.concatenate([np.zeros_like(source[:, :1]), source[:, :-1]], 1)
        data = zlib.compress((source - left).tobytes())
        fields = {**deflate, PREDICTOR: (SHORT, [2])}
        expected = shown(source, source.itemsize * 8)
        tolerance = source.itemsize - 1
        yield good(
            f"tiff predictor 2 {name}",
            tiff(source, RGB, data=data, fields=fields),
            expected,
            tolerance,
        )
        data = zlib.compress(source.tobytes())
        yield good(
            f"tiff deflate {name}",
            tiff(source, RGB, data=data, fields=deflate),
            expected,
            tolerance,
        )
    size = 16
    tiles = [np.zeros((size, size, 3), np.uint8) for _ in range(-(-H // size) * -(-W // size))]
    for i, tile in enumerate(tiles):
        top, left_edge = i // -(-W // size) * size, i % -(-W // size) * size
        part = colour[top : top + size, left_edge : left_edge + size]
        tile[: part.shape[0], : part.shape[1]] = part
    length = size * size * 3
    yield good("tiff tiles", tiff(colour, RGB, data=b"".join(t.tobytes() for t in tiles), fields={
        TILE_WIDTH: (SHORT, [size]), TILE_LENGTH: (SHORT, [size]),
        TILE_OFFSETS: (LONG, [8 + length * i for i in range(len(tiles))]),
        TILE_BYTES: (LONG, [length] * len(tiles)),
        STRIP_OFFSETS: None, STRIP_BYTES: None, ROWS: None,
    }), colour)  # fmt: skip
    picture = scene()
    for compression in ("packbits", "tiff_lzw", "lzma", "zstd"):
        yield good(f"tiff {compression}", saved(picture, "TIFF", compression=compression), picture)
    data = saved(picture, "TIFF", compression="jpeg", quality=95)
    yield good("tiff jpeg", data, picture, 8)
    bit = Image.fromarray(samples(1, 1)[..., 0] * 255).convert("1")
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield good(f"tiff {compression}", saved(bit, "TIFF", compression=compression), bit)
