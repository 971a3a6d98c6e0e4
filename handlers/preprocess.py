"""Specification -> tensor transform, and its inverse.

``to_tensor(RESNET101, image)`` equals what torchvision's
``ResNet101_Weights.IMAGENET1K_V1.transforms()`` gives, to one 8-bit step (two, in single samples,
where both passes of an enlarging resize round the other way), at a cost that does not grow with the
picture's aspect ratio: only the region that the centre crop keeps is resampled.
"""

from __future__ import annotations

import torch
from PIL import Image

from handlers.errors import TooLarge
from handlers.imaging import LIMITS, Limits
from handlers.specs import ModelSpec


def resized_size(spec: ModelSpec, width: int, height: int, resize: int) -> tuple[int, int]:
    """(width, height) in pixels after the shorter side became ``resize``.

    The longer side is cut to whole pixels as torchvision does, or rounded to ``spec.multiple``.
    """
    short, long = min(width, height), max(width, height)
    if spec.multiple == 1:
        scaled = resize * long // short
    else:
        scaled = max(round(resize * long / short / spec.multiple) * spec.multiple, resize)
    return (resize, scaled) if width <= height else (scaled, resize)


def to_tensor(
    spec: ModelSpec, image: Image.Image, *, resize: int | None = None, limits: Limits = LIMITS
) -> torch.Tensor:
    """An RGB image -> ``(3, H, W) float32``, resized, cropped and normalised as ``spec`` says.

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
            f"the picture resized to {kept[0]}x{kept[1]} has more than {limits.network_pixels} "
            "pixels: send a smaller size or a less elongated picture"
        )
    x, y = image.width / width, image.height / height  # source pixels per resized pixel
    box = (left * x, top * y, (left + kept[0]) * x, (top + kept[1]) * y)
    resampled = image.resize(kept, Image.Resampling.BILINEAR, box=box)
    # bytearray: torch wants memory it may write to.
    pixels = torch.frombuffer(bytearray(resampled.tobytes()), dtype=torch.uint8)
    rgb = pixels.view(kept[1], kept[0], 3).permute(2, 0, 1).float().div_(255).contiguous()
    return rgb.sub_(_per_channel(spec.mean)).div_(_per_channel(spec.std))


def to_image(output: torch.Tensor) -> Image.Image:
    """A generator's output, ``(3, H, W)`` in [-1, 1] -> RGB image, rounded to 8 bits."""
    levels = output.add(1).mul(255 / 2).round_().clamp_(0, 255).to(torch.uint8)
    _, height, width = levels.shape
    pixels = levels.permute(1, 2, 0).contiguous().cpu().numpy().tobytes()
    return Image.frombytes("RGB", (width, height), pixels)


def _per_channel(values: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(values).view(3, 1, 1)
