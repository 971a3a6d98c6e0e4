"""A picture as the network's input, by the code that serves."""

from __future__ import annotations

import torch
from PIL import Image

from handlers.metadata import Spec
from handlers.preprocess import to_input, to_pixels


def to_tensor(spec: Spec, image: Image.Image) -> torch.Tensor:
    """An RGB image of the network's size -> ``(3, H, W) float32``."""
    return to_input(spec, to_pixels(image)[None])[0]
