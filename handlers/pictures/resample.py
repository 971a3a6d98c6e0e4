"""RGB image of any size -> the network's input as an RGB image.

The pixels differ from those of torchvision's classification presets by at most one 8-bit step (two
in single samples, if both passes of an enlarging resize round the other way). Only the region that
the centre crop keeps is resampled, so the cost does not grow with the picture's aspect ratio. Does
not import torch, because it runs in the decode processes.
"""

from __future__ import annotations

from PIL import Image

from handlers.errors import TooLarge
from handlers.metadata import Spec
from handlers.pictures.limits import LIMITS, Limits

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def resized_size(spec: Spec, width: int, height: int, resize: int) -> tuple[int, int]:
    """(width, height) in pixels after the shorter side has been resized to ``resize``.

    The longer side is truncated to whole pixels, as in torchvision. If ``spec.multiple`` is above
    1, it is rounded to a multiple of it instead.
    """
    short, long = min(width, height), max(width, height)
    if spec.multiple == 1:
        scaled = resize * long // short
    else:
        scaled = max(round(resize * long / short / spec.multiple) * spec.multiple, resize)
    return (resize, scaled) if width <= height else (scaled, resize)


def resample(
    spec: Spec, image: Image.Image, *, resize: int | None = None, limits: Limits = LIMITS
) -> Image.Image:
    """Resize and crop an RGB image as ``spec`` says.

    ``resize`` overrides the shorter side, in pixels. Raises TooLarge if the network's input or
    output would have more than ``limits.network_pixels``.
    """
    width, height = resized_size(spec, *image.size, resize or spec.resize)
    left = top = 0
    kept = (width, height)
    if spec.crop is not None:
        # As torchvision's center_crop, including its rounding.
        left, top = round((width - spec.crop) / 2.0), round((height - spec.crop) / 2.0)
        kept = (spec.crop, spec.crop)
    largest = (kept[0] * spec.scale, kept[1] * spec.scale)
    if largest[0] * largest[1] > limits.network_pixels:
        raise TooLarge(
            f"the picture resized to {largest[0]}x{largest[1]} has {largest[0] * largest[1]} "
            f"pixels; the limit is {limits.network_pixels}: send a smaller size or a less "
            "elongated picture"
        )
    x, y = image.width / width, image.height / height  # source pixels per resized pixel
    box = (left * x, top * y, (left + kept[0]) * x, (top + kept[1]) * y)
    return image.resize(kept, _FILTERS[spec.interpolation], box=box)
