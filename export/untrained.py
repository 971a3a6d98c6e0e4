"""Seeded random weights that behave like trained ones where it matters for serving.

A freshly initialised deep classifier either saturates or answers the same to every picture.
Calibrated batch norms and a centred, scaled last layer keep activations in range, give different
pictures clearly different answers, and make reduced precision as harmless as on trained weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from handlers.metadata import Spec

# Standard deviation of the logits over classes: a top-1 probability near 0.1 for 1,000 classes.
LOGIT_SCALE = 3.0


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """``(count, 3, height, width) float32`` in [0, 1]: noise at several scales, like photographs.

    The amplitudes of natural pictures fall as 1/f; noise weighted by its cell size approximates
    that. Every second picture has only a few levels, which gives hard edges and flat areas.
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


def classifier(module: nn.Module, spec: Spec, head: str) -> None:
    """Calibrate the batch norms of ``module``, then centre and scale its last layer, in place."""
    side = spec.crop or spec.resize
    batch = example_input(spec, 16, side, side)
    norms = [layer for layer in module.eval().modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = None  # cumulative average
    last = module.get_submodule(head)
    assert isinstance(last, (nn.Linear, nn.Conv2d))
    features: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    if norms:
        module(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
    module(batch)
    hook.remove()
    # Features of different pictures share a large mean, which hides their differences.
    seen = features[-1].flatten(2).mean(2) if features[-1].ndim == 4 else features[-1]
    mean = seen.mean(0)
    nn.init.normal_(last.weight)
    weight = last.weight.flatten(1)
    last.weight.mul_(LOGIT_SCALE / ((seen - mean) @ weight.T).std())
    if last.bias is not None:
        last.bias.copy_(-last.weight.flatten(1) @ mean)
