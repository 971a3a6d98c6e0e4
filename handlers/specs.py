"""The specifications of the two networks: moving to export/networks."""

from __future__ import annotations

import dataclasses

from handlers.metadata import Spec

# Statistics of ImageNet's training set, as torchvision's reference training uses them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# torchvision.models.ResNet101_Weights.IMAGENET1K_V1.transforms()
RESNET101 = Spec(
    name="resnet101",
    variant="v1",
    task="classify",
    output="classes",
    resize=256,
    crop=224,
    multiple=1,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)

# torchvision.models.ResNet101_Weights.IMAGENET1K_V2.transforms()
RESNET101_V2 = dataclasses.replace(RESNET101, variant="v2", resize=232)

# "Deep Learning with PyTorch", chapter 2: Resize(256), ToTensor(), no normalisation. The network
# halves its input twice and doubles it twice, so only multiples of 4 come back at their own size.
CYCLEGAN = Spec(
    name="cyclegan",
    variant="book",
    task="translate",
    output="picture",
    resize=256,
    crop=None,
    multiple=4,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)

# The original CycleGAN training code feeds [-1, 1]: Normalize((0.5,) * 3, (0.5,) * 3).
CYCLEGAN_ORIGINAL = dataclasses.replace(
    CYCLEGAN, variant="original", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)

# Every specification by model name and variant; a model's first variant is its default.
SPECS: dict[str, dict[str, Spec]] = {
    "resnet101": {spec.variant: spec for spec in (RESNET101, RESNET101_V2)},
    "cyclegan": {spec.variant: spec for spec in (CYCLEGAN, CYCLEGAN_ORIGINAL)},
}
