"""Random samples, and what 8 bits make of them."""

from __future__ import annotations

import numpy as np

from tests.corpus.case import Array

H, W = 24, 40


def samples(channels: int, bits: int = 8, seed: int = 0) -> Array:
    """(H, W, channels) integers over the whole range of ``bits``, both ends among them."""
    values = np.random.default_rng(seed).integers(0, 2**bits, (H, W, channels))
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    return values.astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def shown(values: Array, bits: int) -> Array:
    """What 8 bits make of samples that span ``bits``; one channel becomes gray."""
    scaled: Array = np.round(values.astype(np.float64) * 255 / (2**bits - 1))
    return scaled[..., 0] if scaled.shape[-1] == 1 else scaled


def colours(count: int) -> Array:
    return np.random.default_rng(count).integers(0, 256, (count, 3)).astype(np.uint8)


def from_ink(ink: Array) -> Array:
    """(H, W, 4) cyan, magenta, yellow and black of 0 to 255 -> RGB without a profile."""
    mixed: Array = np.round((255.0 - ink[..., :3]) * (255.0 - ink[..., 3:]) / 255)
    return mixed
