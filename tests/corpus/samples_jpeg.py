"""JPEG: channels that are not YCbCr, and sampling factors; of flat blocks, so exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from tests.corpus.case import Array, Case, good, saved, scene
from tests.corpus.encoders import (
    Component,
    jpeg,
    segment,
)
from tests.corpus.levels import H, W, from_ink


def adobe(transform: int) -> bytes:
    """Adobe's APP14 (T.872, 6.5.3): 0 for RGB and CMYK, 1 for YCbCr, 2 for YCCK."""
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def cases() -> Iterator[Case]:
    """JPEGs of four channels, and of three that are not YCbCr; all of flat blocks, so exact."""
    blocks = np.random.default_rng(5).integers(0, 256, (3, 5, 4))
    large = np.kron(blocks, np.ones((8, 8, 1), int))
    expected = from_ink(large)
    # Adobe stores ink inverted: 255 is none.
    data = jpeg(W, H, _components(255 - blocks), before=adobe(0))
    yield good("jpeg cmyk adobe", data, expected, 2)
    # YCCK is YCbCr of what the inks are as if they were light, with black as it is.
    light = Image.fromarray(blocks[..., :3].astype(np.uint8)).convert("YCbCr")
    ycck = np.concatenate([np.asarray(light), 255 - blocks[..., 3:]], -1)
    yield good("jpeg ycck adobe", jpeg(W, H, _components(ycck), before=adobe(2)), expected, 4)
    flat = np.full((3, 5, 4), 255)
    yield good(
        "jpeg cmyk no ink", jpeg(W, H, _components(flat), before=adobe(0)), np.full((H, W), 255)
    )
    colour = blocks[..., :3]
    data = jpeg(W, H, _components(colour), before=adobe(0))
    yield good("jpeg rgb adobe", data, large[..., :3])
    data = jpeg(W, H, _components(colour, names=b"RGB"))
    yield good("jpeg rgb by its names", data, large[..., :3])
    picture = scene()
    ink = picture.convert("CMYK")
    for name, how in (("baseline", {}), ("progressive", {"progressive": True})):
        data = saved(ink, "JPEG", quality=95, **how)
        yield good(f"jpeg cmyk {name}", data, ink.convert("RGB"), 6)
        junk = saved(ink, "JPEG", quality=95, icc_profile=b"junk" * 50, **how)
        yield good(f"jpeg cmyk {name} broken profile", junk, ink.convert("RGB"), 6)


def _components(blocks: Array, names: Sequence[int] = (1, 2, 3, 4)) -> list[Component]:
    return [Component(blocks[..., i], name=names[i]) for i in range(blocks.shape[-1])]
