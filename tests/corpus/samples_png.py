"""PNG: every colour type, depth and transparency, plain and interlaced."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from tests.corpus.case import Case, good, on_white
from tests.corpus.encoders import (
    GRAY,
    GRAY_ALPHA,
    INDEXED,
    TRUECOLOUR,
    TRUECOLOUR_ALPHA,
    chunk,
    png,
)
from tests.corpus.levels import H, W, colours, samples, shown


def cases() -> Iterator[Case]:
    yield from _depths()
    yield from _transparency()


def _depths() -> Iterator[Case]:
    """PNG, 11.2.1: every colour type at every depth, plain and by Adam7."""
    for adam7 in (False, True):
        ending = " adam7" if adam7 else ""
        for bits in (1, 2, 4, 8, 16):
            plain = samples(1, bits)
            data = png(plain, bits, GRAY, adam7=adam7)
            yield good(f"png gray {bits} bit{ending}", data, shown(plain, bits), bits // 16)
        for bits in (1, 2, 4, 8):
            palette, indices = colours(2**bits), samples(1, bits)
            entries = chunk(b"PLTE", palette.tobytes())
            data = png(indices, bits, INDEXED, before=entries, adam7=adam7)
            yield good(f"png palette {bits} bit{ending}", data, palette[indices[..., 0]])
        for bits in (8, 16):
            colour = samples(3, bits)
            data = png(colour, bits, TRUECOLOUR, adam7=adam7)
            yield good(f"png rgb {bits} bit{ending}", data, shown(colour, bits), bits // 16)
            for kind, name, channels in (
                (GRAY_ALPHA, "gray alpha", 2),
                (TRUECOLOUR_ALPHA, "rgba", 4),
            ):
                values = samples(channels, bits)
                expected = on_white(
                    shown(values[..., :-1], bits), values[..., -1].astype(float), 2**bits - 1
                )
                data = png(values, bits, kind, adam7=adam7)
                yield good(f"png {name} {bits} bit{ending}", data, expected, 1 + bits // 16)
    short = chunk(b"PLTE", colours(3).tobytes())
    indices = samples(1, 8) % 3
    yield good(
        "png palette of three", png(indices, 8, INDEXED, before=short), colours(3)[indices[..., 0]]
    )
    spare = chunk(b"PLTE", colours(16).tobytes()) + chunk(b"bKGD", b"\0\1\0\2\0\3")
    colour = samples(3)
    yield good("png rgb with a palette to hint", png(colour, 8, TRUECOLOUR, before=spare), colour)
    gamma = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sRGB", b"\0")
    yield good("png gamma of srgb", png(colour, 8, TRUECOLOUR, before=gamma), colour)


def _transparency() -> Iterator[Case]:
    """PNG, 11.3.1.1: tRNS names one level or colour at the picture's own depth."""
    for bits in (1, 2, 4, 8, 16):
        values = samples(1, bits)
        clear = int(values[2, 3, 0])
        trns = chunk(b"tRNS", struct.pack(">H", clear))
        expected = np.where(values[..., 0] == clear, 255, shown(values, bits))
        yield good(
            f"png trns gray {bits} bit", png(values, bits, GRAY, before=trns), expected, bits // 16
        )
    for bits in (8, 16):
        values = samples(3, bits)
        values[3, 4:9] = values[2, 3]
        values[4, 4:9] = values[2, 3] ^ 1  # a neighbour, at 16 bits of the same 8
        trns = chunk(b"tRNS", struct.pack(">3H", *values[2, 3].tolist()))
        clear_ones = (values == values[2, 3]).all(-1, keepdims=True)
        expected = np.where(clear_ones, 255, shown(values, bits))
        data = png(values, bits, TRUECOLOUR, before=trns)
        yield good(f"png trns rgb {bits} bit", data, expected, bits // 16)
    for bits in (1, 2, 4, 8):
        palette, indices = colours(2**bits), samples(1, bits)
        alpha = np.full(2**bits, 255)
        alpha[: 2 ** (bits - 1)] = np.linspace(0, 200, 2 ** (bits - 1)).round()
        # Fewer alphas than colours: the rest is opaque.
        trns = chunk(b"tRNS", alpha[: 2 ** (bits - 1)].astype(np.uint8).tobytes())
        before = chunk(b"PLTE", palette.tobytes()) + trns
        expected = on_white(palette[indices[..., 0]], alpha[indices[..., 0]], 255)
        yield good(
            f"png trns palette {bits} bit", png(indices, bits, INDEXED, before=before), expected, 1
        )
    clear_all = np.zeros((H, W, 4), np.uint8)
    yield good("png all clear", png(clear_all, 8, TRUECOLOUR_ALPHA), np.full((H, W), 255))
