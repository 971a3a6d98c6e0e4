"""ResNet-101: ImageNet's classes, with torchvision's weights."""

from __future__ import annotations

import functools

from torch import nn
from torchvision.models import ResNet101_Weights, resnet101

from export.networks import Checkpoint, Download, Example, Network, Preprocessing, Serving, Sizes
from export.networks.torchvision import LICENCE, condition
from handlers.metadata import Spec

_BOOK = "https://github.com/deep-learning-with-pytorch/dlwpt-code/raw/master/data/p1ch2/"


def build(spec: Spec) -> nn.Module:
    module: nn.Module = resnet101(weights=None, num_classes=len(spec.labels))
    return module


NETWORK = Network(
    name="resnet101",
    task="classify",
    build=build,
    head="fc",
    labels=tuple(ResNet101_Weights.IMAGENET1K_V1.meta["categories"]),
    sizes=Sizes(),
    # ResNet101_Weights.IMAGENET1K_V1.transforms() and IMAGENET1K_V2.transforms()
    variants={
        "v1": Preprocessing(resize=256, crop=224),
        "v2": Preprocessing(resize=232, crop=224),
    },
    checkpoints={
        "IMAGENET1K_V1": Checkpoint(
            Download(
                file="resnet101-63fe2227.pth",
                url="https://download.pytorch.org/models/resnet101-63fe2227.pth",
                sha256="63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
            ),
            variant="v1",
            source="torchvision.models.ResNet101_Weights.IMAGENET1K_V1",
            licence=LICENCE,
        ),
        "IMAGENET1K_V2": Checkpoint(
            Download(
                file="resnet101-cd907fc2.pth",
                url="https://download.pytorch.org/models/resnet101-cd907fc2.pth",
                sha256="cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e",
            ),
            variant="v2",
            source="torchvision.models.ResNet101_Weights.IMAGENET1K_V2",
            licence=LICENCE,
        ),
    },
    untrained=functools.partial(condition, "fc"),
    serving=Serving(batch_size=8, response_timeout_s=120),
    # "Deep Learning with PyTorch" (Stevens, Antiga, Viehmann; 2020), chapter 2.
    example=Example(
        picture=Download(
            file="bobby.jpg",
            url=_BOOK + "bobby.jpg",
            sha256="71d4d4ae4f00f5febb1f178153673bc456d15f305f6d58517679340dcfbf5914",
        ),
        checkpoint="IMAGENET1K_V1",
        expected={
            "golden retriever": 96.2933,
            "Labrador retriever": 2.8081,
            "cocker spaniel": 0.2827,
            "redbone": 0.2086,
            "tennis ball": 0.1162,
        },
    ),
)
