"""The photographs that the benchmarks send: one motif in every size, with a sensor's noise.

Enlarged, the 512x512 original is smoother than any camera's picture and compresses to a third of
its size. Noise of NOISE_LEVELS gives JPEGs as large as a camera's: about 0.27 MB for 1280x720,
3 MB for 12 megapixels.
"""

from __future__ import annotations

import io

import numpy as np
import skimage.data
from PIL import Image

SIZES = {"320x240": (320, 240), "1280x720": (1280, 720), "12 MP": (4000, 3000)}
# Standard deviation of a small sensor's noise in 8-bit levels, in indoor light.
NOISE_LEVELS = 5.0
QUALITY = 90
# Noise that repeats after so many pixels compresses like noise that does not.
_TILE = 512


def photograph(size: tuple[int, int]) -> bytes:
    """A JPEG of ``size`` (width, height) in pixels, always the same."""
    image = Image.fromarray(skimage.data.astronaut()).resize(size, Image.Resampling.BICUBIC)
    width, height = size
    # The same in all channels: JPEG halves the resolution of colour.
    tile = np.random.default_rng(0).normal(0, NOISE_LEVELS, (_TILE, _TILE, 1)).round()
    noise = np.tile(tile.astype(np.int16), (-(-height // _TILE), -(-width // _TILE), 1))
    levels = np.asarray(image).astype(np.int16) + noise[:height, :width]
    buffer = io.BytesIO()
    noisy = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    noisy.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
