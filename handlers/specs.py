"""The one frozen specification per model that export and handlers both read.

Weights decide preprocessing, so a checkpoint that expects other inputs is another value here and
never an ``if`` elsewhere. No torch import: tools that only need the numbers stay fast.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelSpec:
    """Everything that must agree between a checkpoint, its trace and its server.

    ``resize`` and ``crop`` are in pixels: the shorter side becomes ``resize``, then the centre
    ``crop`` x ``crop`` is kept (``None`` keeps all, with both sides rounded to ``multiple``).
    The input tensor is ``(N, 3, H, W) float32``: ``(rgb / 255 - mean) / std``.
    ``output`` says what the network returns: ``classes`` for ``(N, len(labels))`` logits,
    ``picture`` for ``(N, 3, H, W)`` in [-1, 1].
    """

    name: str
    variant: str
    output: Literal["classes", "picture"]
    resize: int
    crop: int | None
    multiple: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelSpec:
        """The inverse of ``to_json``; TypeError where a field is missing or unknown."""
        fields = json.loads(text)
        for name in ("mean", "std", "labels"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


# Statistics of ImageNet's training set, as torchvision's reference training uses them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# torchvision.models.ResNet101_Weights.IMAGENET1K_V1.transforms()
RESNET101 = ModelSpec(
    name="resnet101",
    variant="v1",
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
CYCLEGAN = ModelSpec(
    name="cyclegan",
    variant="book",
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
SPECS: dict[str, dict[str, ModelSpec]] = {
    "resnet101": {spec.variant: spec for spec in (RESNET101, RESNET101_V2)},
    "cyclegan": {spec.variant: spec for spec in (CYCLEGAN, CYCLEGAN_ORIGINAL)},
}
