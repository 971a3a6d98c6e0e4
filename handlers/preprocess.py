"""The network's input as an RGB image -> its tensor, and a generator's output -> RGB image."""

from __future__ import annotations

import torch
from PIL import Image

from handlers.specs import ModelSpec


def to_tensor(spec: ModelSpec, image: Image.Image) -> torch.Tensor:
    """An RGB image of the network's size -> ``(3, H, W) float32``, normalised as ``spec`` says."""
    # bytearray: torch wants memory it may write to.
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    rgb = pixels.view(image.height, image.width, 3).permute(2, 0, 1)
    rgb = rgb.float().div_(255).contiguous()
    return rgb.sub_(_per_channel(spec.mean)).div_(_per_channel(spec.std))


def to_image(output: torch.Tensor) -> Image.Image:
    """A generator's output, ``(3, H, W)`` in [-1, 1] -> RGB image, rounded to 8 bits."""
    levels = output.add(1).mul(255 / 2).round_().clamp_(0, 255).to(torch.uint8)
    _, height, width = levels.shape
    pixels = levels.permute(1, 2, 0).contiguous().cpu().numpy().tobytes()
    return Image.frombytes("RGB", (width, height), pixels)


def _per_channel(values: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(values).view(3, 1, 1)
