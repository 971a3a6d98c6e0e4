"""The network's input as an RGB image -> its tensor, and a generator's output -> RGB image."""

from __future__ import annotations

import torch
from PIL import Image

from handlers.metadata import Spec


def to_pixels(image: Image.Image) -> torch.Tensor:
    """An RGB image -> ``(H, W, 3) uint8``."""
    # bytearray: torch wants memory it may write to.
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3)


def to_input(spec: Spec, pixels: torch.Tensor) -> torch.Tensor:
    """``(N, H, W, 3) uint8`` -> ``(N, 3, H, W) float32`` on the same device, as ``spec`` says.

    What goes to a GPU is a quarter of the floats' bytes; and the pixels lie channels-last as they
    come, so that layout costs nothing.
    """
    mean, std = (torch.tensor(values, device=pixels.device) for values in (spec.mean, spec.std))
    # (p / 255 - mean) / std in two passes over the data instead of three.
    return pixels.float().mul_(1 / (255 * std)).sub_(mean / std).permute(0, 3, 1, 2)


def to_image(output: torch.Tensor) -> Image.Image:
    """A generator's output, ``(3, H, W)`` in [-1, 1] -> RGB image, rounded to 8 bits."""
    levels = output.add(1).mul(255 / 2).round_().clamp_(0, 255).to(torch.uint8)
    _, height, width = levels.shape
    pixels = levels.permute(1, 2, 0).contiguous().cpu().numpy().tobytes()
    return Image.frombytes("RGB", (width, height), pixels)
