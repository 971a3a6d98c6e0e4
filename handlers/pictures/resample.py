"""RGB image of any size -> the network's input as an RGB image.

Its pixels equal what torchvision's ``ResNet101_Weights.IMAGENET1K_V1.transforms()`` gives, to one
8-bit step (two, in single samples, where both passes of an enlarging resize round the other way),
at a cost that does not grow with the picture's aspect ratio: only the region that the centre crop
keeps is resampled. No torch import: this runs in the decode processes.
"""

from __future__ import annotations

from PIL import Image

from handlers.errors import TooLarge
from handlers.metadata import Spec
from handlers.pictures.limits import LIMITS, Limits


def resized_size(spec: Spec, width: int, height: int, resize: int) -> tuple[int, int]:
    """(width, height) in pixels after the shorter side became ``resize``.

    The longer side is cut to whole pixels as torchvision does, or rounded to ``spec.multiple``.
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
    """An RGB image, resized and cropped as ``spec`` says.

    ``resize`` overrides the shorter side, in pixels. Raises TooLarge where the network's input
    would have more than ``limits.network_pixels``.
    """
    width, height = resized_size(spec, *image.size, resize or spec.resize)
    left = top = 0
    kept = (width, height)
    if spec.crop is not None:
        # torchvision's center_crop, rounding included.
        left, top = round((width - spec.crop) / 2.0), round((height - spec.crop) / 2.0)
        kept = (spec.crop, spec.crop)
    if kept[0] * kept[1] > limits.network_pixels:
        raise TooLarge(
            f"the picture resized to {kept[0]}x{kept[1]} has {kept[0] * kept[1]} pixels; the limit "
            f"is {limits.network_pixels}: send a smaller size or a less elongated picture"
        )
    x, y = image.width / width, image.height / height  # source pixels per resized pixel
    box = (left * x, top * y, (left + kept[0]) * x, (top + kept[1]) * y)
    return image.resize(kept, Image.Resampling[spec.interpolation.upper()], box=box)
