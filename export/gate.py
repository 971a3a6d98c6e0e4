"""How far reduced precision moves the answers of given weights: measured at export, heeded at load.

The worker that serves may run on another machine than the export, with other instructions, so the
figures come from emulation, which gives the same everywhere: weights and the result of every layer
are rounded to the type, and computed in float32 in between, as hardware accumulates. Layers that
are served in float32 are not rounded.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from export.models import Network
from export.simplify import InFloat32, simplified
from export.untrained import example_input

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}

# What reduced precision may change. The error is that of the logits, relative in the 2-norm, as a
# mean over pictures; a margin is between the two highest probabilities; pictures differ in 8-bit
# steps.
LOGITS_ERROR = 0.02
MARGIN = 0.02
PICTURE_STEPS = 2.0

PICTURES = {"classes": (16, 224, 224), "picture": (4, 128, 128)}
SEED = 1000


def measure(network: Network) -> dict[str, dict[str, Any]]:
    """The figures of ``network``: ``{precision: {"passed": bool, "summary": str, ...}}``.

    ``summary`` is a phrase for a person; the other entries are those of ``judge``.
    """
    inputs = example_input(network.spec, *PICTURES[network.spec.output], seed=SEED)
    module = simplified(network.module)
    with torch.inference_mode():
        exact = network.module(inputs)
        return {
            name: judge(network.spec.output, exact, emulated(module, dtype)(inputs))
            for name, dtype in DTYPES.items()
        }


def emulated(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of ``module`` that takes and gives float32, and rounds to ``dtype`` like one in it."""

    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype).float()

    emulation = copy.deepcopy(module)
    emulation.register_forward_pre_hook(lambda _, inputs: tuple(map(rounded, inputs)))
    exact = {
        inner
        for layer in emulation.modules()
        if isinstance(layer, InFloat32)
        for inner in layer.modules()
    }
    for layer in set(emulation.modules()) - exact:
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            tensor.copy_(rounded(tensor))
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, _inputs, output: rounded(output))
    return emulation


def judge(output: str, exact: torch.Tensor, found: torch.Tensor) -> dict[str, Any]:
    """The figures of outputs ``found`` beside float32's ``exact``, both ``(N, ...) float32``.

    ``output`` is the specification's: classes or picture.
    """
    if not found.isfinite().all():  # float16 ends at 65504
        return {"passed": False, "summary": "values outside its range"}
    if output == "picture":
        steps = (found - exact).abs().mean().item() * 255 / 2
        summary = f"pictures differ by {steps:.2g}/255 on average, {PICTURE_STEPS:g} may"
        return {"picture_steps": steps, "passed": steps <= PICTURE_STEPS, "summary": summary}
    error = ((found - exact).norm(dim=1) / exact.norm(dim=1)).mean().item()
    top = exact.softmax(1).topk(2).values
    clear = (top[:, 0] - top[:, 1]) > MARGIN
    agrees = bool((found.argmax(1) == exact.argmax(1))[clear].all())
    shift = (found.softmax(1) - exact.softmax(1)).abs().max().item()
    return {
        "logits_error": error,
        "top1_agrees": agrees,
        "clear_pictures": int(clear.sum()),
        "largest_probability_shift": shift,
        "passed": error <= LOGITS_ERROR and agrees,
        "summary": f"logits off by {error:.2%}, {LOGITS_ERROR:.0%} may be; top-1 "
        f"{'agrees' if agrees else 'differs'} on {int(clear.sum())} clear pictures",
    }
