"""The photographs that the clients send: one picture in several sizes, with a camera's noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

SIZES = {"320x240": (320, 240), "1280x720": (1280, 720), "12 MP": (4000, 3000)}
# Standard deviation of a small sensor's noise in indoor light, in 8-bit levels. It makes JPEGs as
# large as a camera's, 0.27 MB for 1280x720; without it they would be a third of that.
NOISE_LEVELS = 5.0


def photographs(folder: Path) -> dict[str, Path]:
    """A JPEG of each size in ``folder``; the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.jpg" for name in SIZES}
    for name, (width, height) in SIZES.items():
        image = Image.fromarray(skimage.data.astronaut()).resize((width, height))
        # All channels share the noise, since JPEG halves the resolution of colour.
        noise = np.random.default_rng(0).normal(0, NOISE_LEVELS, (height, width, 1)).round()
        levels = (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(levels).save(paths[name], quality=90)
    return paths
