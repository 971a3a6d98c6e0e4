"""A small network that doubles a picture's size, as a user's own file outside the repository."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from export.networks import Network, Preprocessing, Serving, Sizes
from handlers.metadata import Spec


class SuperResolution(nn.Module):
    """``(N, 3, H, W) float32`` in [0, 1] -> ``(N, 3, 2 * H, 2 * W)`` in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 12, 3, padding=1)
        )
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        enlarged = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        doubled: torch.Tensor = enlarged + self.shuffle(self.body(x))
        return doubled.clamp(0, 1)


def build(_: Spec) -> nn.Module:
    return SuperResolution()


def condition(module: nn.Module, _: Spec) -> None:
    """A small correction: the output is about the enlarged picture."""
    assert isinstance(module, SuperResolution)
    last = module.body[2]
    assert isinstance(last, nn.Conv2d)
    last.weight.mul_(0.1)


NETWORK = Network(
    name="superres2x",
    task="translate",
    build=build,
    variants={
        "plain": Preprocessing(resize=128, multiple=2, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    },
    scale=2,
    output_range=(0.0, 1.0),
    sizes=Sizes(proof=((1, 64, 64), (5, 64, 64), (2, 96, 156)), gate=(4, 64, 64)),
    untrained=condition,
    serving=Serving(batch_size=2, job_queue_size=8),
)
