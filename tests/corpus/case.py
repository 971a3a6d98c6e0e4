"""What one file of the corpus is, and the shorthands that every family of files uses."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]

# CycleGAN's contract: the shorter side becomes 256, the longer a multiple of 4, at most so many.
_NETWORK_PIXELS = 2_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """A file, and what serving it must give.

    ``code`` and ``kind`` are the HTTP status and the error's type; ``pixels`` is the expected
    upright RGB picture, None where only the code is known; ``tolerance`` is the greatest difference
    of any 8-bit sample; ``cyclegan_code`` is the status where CycleGAN's differs.
    """

    name: str
    data: bytes
    code: int = 200
    kind: str = ""
    pixels: Image.Image | None = None
    tolerance: int = 0
    cyclegan_code: int | None = None

    def expected(self, model: str) -> tuple[int, str]:
        """Status and error type of ``model``'s answer."""
        if model == "cyclegan" and self.cyclegan_code is not None:
            return self.cyclegan_code, "TooLarge"
        return self.code, self.kind

    def options(self, model: str) -> dict[str, str]:
        """What keeps CycleGAN cheap; where its input is too large, that is so at its own size."""
        return {"size": "64"} if model == "cyclegan" and self.cyclegan_code is None else {}


def good(name: str, data: bytes, pixels: Image.Image | Array, tolerance: int = 0) -> Case:
    """A file that gives ``pixels``: RGB or gray, 8 bits a sample."""
    if not isinstance(pixels, Image.Image):
        pixels = Image.fromarray(np.ascontiguousarray(pixels.astype(np.uint8)))
    return Case(
        name,
        data,
        pixels=pixels.convert("RGB"),
        tolerance=tolerance,
        cyclegan_code=_cyclegan_code(*pixels.size),
    )


def bad(name: str, data: bytes) -> Case:
    return Case(name, data, 400, "BadImage")


def too_large(name: str, data: bytes) -> Case:
    return Case(name, data, 413, "TooLarge")


def refused(name: str, data: bytes) -> Case:
    return Case(name, data, 415, "UnsupportedFormat")


def saved(image: Image.Image, format: str, **how: Any) -> bytes:
    """``image`` as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, format, **how)
    return buffer.getvalue()


@cache
def scene(width: int = 48, height: int = 32) -> Image.Image:
    """Smooth, so that lossy formats stay close, and like none of its turns and mirror images."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / max(width - 1, 1)
    green = 255 * y / max(height - 1, 1)
    blue = 128 + 100 * np.sin(2 * np.pi * (x / width + y / height / 2))
    return Image.fromarray(np.stack([red, green, blue], -1).round().astype(np.uint8))


def on_white(samples: Array, alpha: Array, opaque: float) -> Array:
    """8-bit ``samples`` (H, W[, C]) over white, by ``alpha`` (H, W) of which ``opaque`` is all."""
    share = alpha / opaque
    if samples.ndim == 3:
        share = share[..., None]
    mixed: Array = np.round(samples * share + 255 * (1 - share))
    return mixed


def _cyclegan_code(width: int, height: int) -> int | None:
    short, long = sorted((width, height))
    resized = max(round(256 * long / short / 4) * 4, 256)
    return 413 if 256 * resized > _NETWORK_PIXELS else None
