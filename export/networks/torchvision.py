"""Any classifier of torchvision, by its name in ``torchvision.models.list_models()``.

Preprocessing, labels and checkpoints come from torchvision's weights API.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models
from torchvision.models import resnet

from export import untrained
from export.networks import Checkpoint, Download, Network, Preprocessing, Sizes, StateDict
from export.weights import MAX_BYTES
from handlers.metadata import Spec

# Weight of each ResNet block's last batch norm: the blocks then add up instead of blowing up, and
# reduced precision costs as little as on trained weights.
RESIDUAL_GAIN = 0.05

LICENCE = (
    "BSD-3-Clause (torchvision); trained on ImageNet, whose terms are for non-commercial research"
)
# A classifier that cannot take pictures of Sizes() is exported at its own size.
_SMALLEST_SIDE = 64


@functools.cache
def names() -> tuple[str, ...]:
    """The classifiers, without their quantised copies and the networks of other tasks."""
    return tuple(models.list_models(module=models))


def network(name: str) -> Network:
    """The classifier called ``name``, which is one of ``names()``."""
    weights = models.get_model_weights(name)
    # Features without a head have no categories.
    entries = [
        weights.DEFAULT,
        *(w for w in weights if w != weights.DEFAULT and w.meta["categories"]),
    ]
    first = entries[0]
    head = [
        layer_name
        for layer_name, layer in skeleton(name).named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    ][-1]
    return Network(
        name=name,
        task="classify",
        build=functools.partial(_build, name),
        head=head,
        labels=tuple(first.meta["categories"]),
        sizes=Sizes() if max(first.meta["min_size"]) <= _SMALLEST_SIDE else None,
        variants={entry.name.lower(): _preprocessing(entry) for entry in entries},
        checkpoints={entry.name: _checkpoint(entry) for entry in entries},
        repair=_repair,
        untrained=functools.partial(condition, head),
        reference=name,
    )


@functools.cache
def skeleton(name: str) -> nn.Module:
    """The module of the classifier called ``name``, without memory for its parameters."""
    with WithoutMemory():
        return _module(name)


def families() -> list[list[str]]:
    """The classifiers, those of one paper together."""
    members: dict[str, list[str]] = {}
    for name in names():
        members.setdefault(models.get_model_builder(name).__module__, []).append(name)
    return [*members.values()]


class WithoutMemory(TorchFunctionMode):
    """Layers are built without memory for their parameters.

    ``torch.device("meta")`` would do the same to tensors that RegNets compute their widths with.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **device})


def _build(name: str, spec: Spec) -> nn.Module:
    arguments: dict[str, Any] = {"num_classes": len(spec.labels)}
    if name.startswith("vit_"):
        arguments["image_size"] = spec.crop
    return _module(name, **arguments)


def _module(name: str, **arguments: Any) -> nn.Module:
    if name in ("googlenet", "inception_v3"):
        # As torchvision builds them for its weights; the second heads are for training only.
        arguments |= {"transform_input": True, "aux_logits": False, "init_weights": False}
    module: nn.Module = models.get_model(name, weights=None, **arguments)
    return module


def _preprocessing(entry: Any) -> Preprocessing:
    transforms = entry.transforms()
    return Preprocessing(
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


def _checkpoint(entry: Any) -> Checkpoint:
    file = entry.url.rpartition("/")[2]
    digits = re.search(r"-([0-9a-f]{8,})\.pth$", file)
    assert digits is not None, file
    # torchvision publishes the size in MiB, rounded.
    largest = max(MAX_BYTES, int(1.01 * 2**20 * entry.meta["_file_size"]))
    return Checkpoint(
        Download(file=file, url=entry.url, sha256=digits[1], max_bytes=largest),
        variant=entry.name.lower(),
        source=f"torchvision.models.{entry}",
        licence=entry.meta.get("license", LICENCE),
    )


def _repair(state: StateDict) -> StateDict:
    """Drop the second heads, and rename the layers of DenseNets saved before PyTorch 0.4."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): tensor
        for key, tensor in state.items()
        if not key.startswith(("aux1.", "aux2.", "AuxLogits."))
    }


def condition(head: str, module: nn.Module, spec: Spec) -> None:
    """Make random weights behave like trained ones: see ``export.untrained``."""
    for block in module.modules():
        if isinstance(block, (resnet.BasicBlock, resnet.Bottleneck)):
            last = block.bn3 if isinstance(block, resnet.Bottleneck) else block.bn2
            last.weight.fill_(RESIDUAL_GAIN)
    untrained.classifier(module, spec, head)
