"""The answers of eager PyTorch, with which served and exported networks are compared."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from torchvision.models import ResNet101_Weights
from torchvision.transforms import v2

from export.checkpoints import untrained
from export.networks import registered

LABELS: list[str] = ResNet101_Weights.IMAGENET1K_V1.meta["categories"]

Ranking = list[tuple[str, float]]


@cache
def _network(name: str) -> nn.Module:
    return untrained(registered()[name])


def classified(picture: Image.Image, top_k: int) -> Ranking:
    """The ranking of an RGB picture, preprocessed by torchvision's transforms."""
    preprocess = ResNet101_Weights.IMAGENET1K_V1.transforms()
    with torch.inference_mode():
        best = _network("resnet101")(preprocess(picture)[None])[0].softmax(0).topk(top_k)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(LABELS[index], probability) for index, probability in pairs]


def translated(picture: Image.Image, size: int = 256) -> npt.NDArray[np.float32]:
    """The generator's picture as ``(H, W, 3) float32``, 0 to 255, not rounded.

    ``size`` is the shorter side; the longer one must become a multiple of 4 without rounding.
    """
    preprocess = v2.Compose(
        [v2.Resize(size), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    with torch.inference_mode():
        output = _network("cyclegan")(preprocess(picture)[None])[0]
    levels: npt.NDArray[np.float32] = ((output + 1) / 2 * 255).permute(1, 2, 0).numpy()
    return levels
