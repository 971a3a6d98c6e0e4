"""BMP: every header, depth and compression that Windows and OS/2 wrote."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.corpus.case import Case, good, on_white
from tests.corpus.encoders import (
    bmp,
    bmp_rows,
)
from tests.corpus.levels import H, W, colours, samples, shown


def cases() -> Iterator[Case]:
    for header in (12, 40, 64, 108, 124):
        for bits in (1, 4, 8):
            palette, indices = colours(2**bits), samples(1, bits)[..., 0]
            blue_first = palette[:, ::-1]
            if header > 12:  # RGBQUAD has a fourth byte, RGBTRIPLE none
                blue_first = np.concatenate([blue_first, np.zeros((2**bits, 1), np.uint8)], 1)
            data = bmp(
                W,
                H,
                bits,
                bmp_rows(indices[::-1], bits),
                header=header,
                palette=blue_first.tobytes(),
            )
            yield good(f"bmp {bits} bit header {header}", data, palette[indices])
        colour = samples(3)
        rows = bmp_rows(colour[::-1, :, ::-1].reshape(H, -1), 8)
        yield good(f"bmp 24 bit header {header}", bmp(W, H, 24, rows, header=header), colour)
    top = bmp_rows(colour[..., ::-1].reshape(H, -1), 8)
    yield good("bmp top row first", bmp(W, -H, 24, top), colour)
    four = samples(4)
    stored = bmp_rows(four[::-1][..., [2, 1, 0, 3]].reshape(H, -1), 8)
    # The fourth byte of BI_RGB is reserved, and not alpha.
    yield good("bmp 32 bit", bmp(W, H, 32, stored), four[..., :3])
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    data = bmp(W, H, 32, stored, header=124, compression=3, masks=masks)
    yield good(
        "bmp 32 bit alpha", data, on_white(four[..., :3], four[..., 3].astype(float), 255), 1
    )
    for name, depths, how in (
        ("15", (5, 5, 5), {}),
        ("16", (5, 6, 5), {"compression": 3, "masks": (0xF800, 0x7E0, 0x1F)}),
    ):
        parts = [
            samples(1, depth, seed=i)[..., 0].astype(np.uint16) for i, depth in enumerate(depths)
        ]
        word = parts[0] << (depths[1] + depths[2]) | parts[1] << depths[2] | parts[2]
        stored = word[::-1].astype("<u2").tobytes()  # W is even: rows need no padding
        expected = np.stack(
            [shown(p[..., None], d) for p, d in zip(parts, depths, strict=True)], -1
        )
        yield good(f"bmp {name} bit", bmp(W, H, 16, stored, **how), expected, 1)  # type: ignore[arg-type]
    palette, indices = colours(256), samples(1)[..., 0]
    quads = np.concatenate([palette[:, ::-1], np.zeros((256, 1), np.uint8)], 1).tobytes()
    runs = b"".join(
        b"".join(bytes([1, i]) for i in row) + b"\0\0" for row in indices[::-1].tolist()
    )
    data = bmp(W, H, 8, runs + b"\0\1", palette=quads, compression=1)
    yield good("bmp rle 8", data, palette[indices])
    pairs = (indices // 16) // 2 * 2 % 16
    runs = b"".join(
        b"".join(bytes([1, i << 4]) for i in row) + b"\0\0" for row in pairs[::-1].tolist()
    )
    data = bmp(W, H, 4, runs + b"\0\1", palette=quads[:64], compression=2)
    yield good("bmp rle 4", data, palette[pairs])
    few = bmp(W, H, 8, bmp_rows(indices[::-1] % 3, 8), palette=quads[:12], colors=3)
    yield good("bmp palette of three", few, palette[indices % 3])
