"""Seeded random networks that behave like trained ones where it matters for serving.

A freshly initialised ResNet-101 either saturates or answers the same to every picture. Calibrated
batch-norm statistics, small residual gains and a centred, scaled last layer keep activations in
range, give different pictures clearly different answers, and keep low precision as harmless as it
is on trained weights.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet101

from export.generator import Generator
from handlers.metadata import Spec
from handlers.specs import RESNET101

# Weight of each block's last batch norm: 33 blocks then add up instead of blowing up,
# and reduced precision costs what it does on trained networks (export/gate.py).
RESIDUAL_GAIN = 0.05
# Standard deviation of the logits over classes: a top-1 probability near 0.1 for 1,000 classes.
LOGIT_SCALE = 3.0
# Standard deviation before tanh: most samples stay clear of its flat ends.
TANH_SCALE = 0.6


def build(model: str, classes: int, seed: int) -> nn.Module:
    """``model`` in eval mode; the same seed gives the same weights, whatever ran before."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = _resnet101(classes) if model == "resnet101" else _generator()
    return network.eval()


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """``(count, 3, height, width) float32`` in [0, 1]: noise at several scales, like photographs.

    Natural pictures have amplitudes that fall as 1/f; octaves of weight equal to their cell's size
    come close. Every second one has few levels, for the hard edges and flat areas of things.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros(count, 3, height, width)
    for cell in (4, 16, 64):
        shape = (count, 3, max(height // cell, 2), max(width // cell, 2))
        noise = torch.randn(shape, generator=generator)
        drawn += cell * F.interpolate(noise, size=(height, width), mode="bicubic")
    tint, contrast = torch.randn((2, count, 3, 1, 1), generator=generator)
    drawn = drawn.div(drawn.std()).mul(contrast.exp()).add(tint).mul(0.2).add(0.5).clamp(0, 1)
    drawn[1::2] = drawn[1::2].mul(2).round().div(2)
    return drawn


def example_input(spec: Spec, n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Seeded pictures as the network's input, ``(n, 3, height, width) float32``."""
    mean, std = torch.tensor(spec.mean).view(3, 1, 1), torch.tensor(spec.std).view(3, 1, 1)
    return (pictures(n, height, width, seed) - mean) / std


def _resnet101(classes: int) -> nn.Module:
    network = resnet101(weights=None, num_classes=classes)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain average over what it sees below
            if name.endswith("bn3"):
                module.weight.fill_(RESIDUAL_GAIN)
    batch = example_input(RESNET101, 16, 224, 224)
    network.train()(batch)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # torchvision's default, for whoever trains on from here
    # Features of different pictures share a large mean; without it they are told apart.
    head, network.fc = network.fc, nn.Identity()
    features = network.eval()(batch)
    centred = features - features.mean(0)
    nn.init.normal_(head.weight)
    head.weight.mul_(LOGIT_SCALE / (centred @ head.weight.T).std())
    head.bias.copy_(-head.weight @ features.mean(0))
    network.fc = head
    return cast(nn.Module, network)


def _generator() -> nn.Module:
    network = Generator()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            # Random over channels and smooth over space, for an output that looks and compresses
            # like a picture; binomial kernels upsample by two without a checkerboard.
            order = module.kernel_size[0] - 1
            row = torch.tensor([float(math.comb(order, i)) for i in range(order + 1)])
            kernel = torch.outer(row, row) / row.sum() ** 2
            module.weight.copy_(torch.randn(*module.weight.shape[:2], 1, 1) * kernel)
    before_tanh = network.model[:-1](pictures(2, 128, 128))
    last = network.model[-2]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    scale = TANH_SCALE / before_tanh.std(dim=(0, 2, 3))
    last.weight.mul_(scale.view(-1, 1, 1, 1))
    last.bias.mul_(scale).sub_(before_tanh.mean(dim=(0, 2, 3)) * scale)
    return network
