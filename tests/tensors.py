"""A picture as the network's input, by the code that serves."""

from __future__ import annotations

import torch
from PIL import Image

from handlers.metadata import Spec
from handlers.network.engine import to_input
from handlers.network.engine import to_tensor as to_pixels
from handlers.pictures.pool import Pixels


def to_tensor(spec: Spec, image: Image.Image) -> torch.Tensor:
    """An RGB image of the network's size -> ``(3, H, W) float32``."""
    pixels = Pixels(image.size, bytearray(image.tobytes()))
    return to_input(spec, to_pixels(pixels)[None])[0]
