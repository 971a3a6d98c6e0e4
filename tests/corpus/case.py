"""A file of the corpus with its expected answer, and what all families of files use."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]

SUPPORTED = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"

# CycleGAN's limit: it resizes the shorter side to 256 and the longer one to a multiple of 4.
_NETWORK_PIXELS = 2_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """A file and the answer that it must get.

    ``code`` and ``kind`` are the HTTP status and the error's type. ``pixels`` is the expected
    upright RGB picture, None if only the status is defined; each 8-bit sample may differ by
    ``tolerance``. ``cyclegan_code`` is CycleGAN's status if it differs. ``message`` is a pattern of
    an error's message.
    """

    name: str
    data: bytes
    code: int = 200
    kind: str = ""
    pixels: Image.Image | None = None
    tolerance: int = 0
    cyclegan_code: int | None = None
    message: str = ""

    def expected(self, model: str) -> tuple[int, str]:
        """Status and error type of ``model``'s answer."""
        if model == "cyclegan" and self.cyclegan_code is not None:
            return self.cyclegan_code, "TooLarge"
        return self.code, self.kind

    def options(self, model: str) -> dict[str, str]:
        """A small ``size`` for CycleGAN, to save time, unless the default size is the test."""
        return {"size": "64"} if model == "cyclegan" and self.cyclegan_code is None else {}


def good(name: str, data: bytes, pixels: Image.Image | Array, tolerance: int = 0) -> Case:
    """A file that decodes to ``pixels``: RGB or gray, 8 bits a sample."""
    if not isinstance(pixels, Image.Image):
        gray = pixels.ndim == 3 and pixels.shape[-1] == 1
        levels = np.ascontiguousarray((pixels[..., 0] if gray else pixels).astype(np.uint8))
        pixels = Image.fromarray(levels)
    short, long = sorted(pixels.size)
    resized = max(round(256 * long / short / 4) * 4, 256)
    code = 413 if 256 * resized > _NETWORK_PIXELS else None
    return Case(name, data, 200, "", pixels.convert("RGB"), tolerance, code)


def bad(name: str, data: bytes, format: str = r"\w+") -> Case:
    damaged = f"the {format} cannot be decoded: it is (damaged, )?truncated"
    message = f"{damaged}|the bytes are not a picture: send {SUPPORTED}"
    return Case(name, data, 400, "BadImage", message=message)


def too_large(name: str, data: bytes) -> Case:
    return Case(name, data, 413, "TooLarge", message="limit")


def refused(name: str, data: bytes, format: str) -> Case:
    message = f"^{format} is not supported: send {SUPPORTED}"
    return Case(name, data, 415, "UnsupportedFormat", message=message)


def group(
    make: Callable[..., Case], prefix: str, files: Mapping[str, bytes], *expected: Any
) -> Iterator[Case]:
    """``make`` applied to each of ``files``, whose keys end the names."""
    for name, data in files.items():
        yield make(f"{prefix} {name}", data, *expected)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """``image`` as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@cache
def scene(width: int = 48, height: int = 32) -> Image.Image:
    """A smooth picture, so that lossy formats stay close, that differs when flipped or rotated."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / max(width - 1, 1)
    green = 255 * y / max(height - 1, 1)
    blue = 128 + 100 * np.sin(2 * np.pi * (x / width + y / height / 2))
    return Image.fromarray(np.stack([red, green, blue], -1).round().astype(np.uint8))


# Pillow's options for each format, and the tolerance.
WAYS: dict[str, tuple[str, dict[str, Any], int]] = {
    "jpeg": ("JPEG", {"quality": 95, "subsampling": 0}, 8),
    "jpeg progressive": ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 8),
    "png": ("PNG", {}, 0),
    "webp lossless": ("WEBP", {"lossless": True}, 0),
    "webp lossy": ("WEBP", {"quality": 95}, 16),
    "gif": ("GIF", {}, 0),
    "bmp": ("BMP", {}, 0),
    "tiff": ("TIFF", {}, 0),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}, 0),
    "avif": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}, 8),
}


def written(name: str, image: Image.Image | None = None, **options: Any) -> bytes:
    """The scene, or ``image``, in one of the WAYS."""
    format, defaults, _ = WAYS[name]
    return saved(image or scene_of(name), format, **defaults, **options)


def scene_of(name: str) -> Image.Image:
    """The scene, with no more colours than the format can store."""
    return scene().quantize(256) if name == "gif" else scene()


def half_clear() -> tuple[Image.Image, Image.Image]:
    """The scene with a gradient as alpha, and the same on white."""
    picture = scene().copy()
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    white = Image.new("RGB", picture.size, "white")
    white.paste(scene(), mask=picture.getchannel("A"))
    return picture, white


H, W = 24, 40


def samples(channels: int = 1, bits: int = 8, seed: int = 0) -> Array:
    """Random integers of ``bits``, with both extremes: (H, W, channels), or (H, W) for one."""
    values = np.random.default_rng(seed).integers(0, 2**bits, (H, W, channels))
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    values = values[..., 0] if channels == 1 else values
    return values.astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def shown(values: Array, bits: int) -> Array:
    """Samples of ``bits`` scaled to 8 bits."""
    scaled: Array = np.round(values.astype(np.float64) * 255 / (2**bits - 1))
    return scaled


def on_white(values: Array, bits: int = 8) -> Array:
    """(H, W, C) samples of ``bits``, the last of them alpha -> 8 bits, on white."""
    alpha = values[..., -1:] / (2**bits - 1)
    mixed: Array = np.round(shown(values[..., :-1], bits) * alpha + 255 * (1 - alpha))
    return mixed


def colours(count: int) -> Array:
    return np.random.default_rng(count).integers(0, 256, (count, 3)).astype(np.uint8)


def packed(values: Array, bits: int) -> list[bytes]:
    """(rows, n) integers of ``bits`` -> bytes per row, the highest bit first."""
    planes = (values.astype(np.int64)[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(planes.reshape(len(values), -1).astype(np.uint8), axis=1)
    return [row.tobytes() for row in rows]
