"""A small classifier of three classes, as a user's own file outside the repository."""

from __future__ import annotations

import torch
from torch import nn

from export import untrained
from export.networks import Network, Preprocessing, Serving, Sizes
from handlers.metadata import Spec


class TinyClassifier(nn.Module):
    """``(N, 3, H, W) float32`` -> ``(N, classes)`` logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.pool(torch.relu(self.norm(self.conv(x)))).flatten(1)
        logits: torch.Tensor = self.head(features)
        return logits


def build(spec: Spec) -> nn.Module:
    return TinyClassifier(len(spec.labels))


def condition(module: nn.Module, spec: Spec) -> None:
    untrained.classifier(module, spec, "head")


NETWORK = Network(
    name="tiny_classifier",
    task="classify",
    build=build,
    head="head",
    labels=("cat", "dog", "horse"),
    variants={"imagenet": Preprocessing(resize=72, crop=64)},
    sizes=Sizes(proof=((1, 64, 64), (5, 64, 64), (2, 96, 160)), gate=(16, 64, 64)),
    untrained=condition,
    serving=Serving(batch_size=4),
)
