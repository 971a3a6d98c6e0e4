"""The accuracy gate: measures at export how much reduced precision changes a network's outputs.

A worker runs in a reduced precision by default only if the weights passed. Its machine may have
other instructions than the machine of the export, so the precision is emulated, with the same
result everywhere: weights and the output of every layer are rounded to the type, and layers compute
in float32, as hardware accumulates. Layers that are served in float32 are not rounded.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from export.checkpoints import Loaded
from export.simplify import InFloat32
from export.standalone import relative_error
from export.untrained import example_input
from handlers.metadata import Spec
from handlers.network.torchscript import reduce

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}

# Limits: the relative error of the logits (2-norm, averaged over pictures); the difference of the
# two highest probabilities from which the first class must agree; the mean difference of output
# pictures in 8-bit steps; the smallest cosine of features, and the largest relative difference of
# their lengths.
LOGITS_ERROR = 0.02
MARGIN = 0.02
PICTURE_STEPS = 2.0
COSINE = 0.999
LENGTH_ERROR = 0.02
# Limits of another engine in float32, which sums in another order: the largest difference of
# probabilities, of output pictures in 8-bit steps, where half a step changes a sample by one, and
# of features relative to the largest.
EXACT_PROBABILITY = 1e-4
EXACT_STEPS = 0.5
EXACT_FEATURES = 1e-4

SEED = 1000


@dataclass(frozen=True)
class Case:
    """A batch and eager PyTorch's output for it, both ``(N, ...) float32``."""

    input: torch.Tensor
    output: torch.Tensor


def gate_case(loaded: Loaded) -> Case:
    """The case that judges precisions."""
    inputs = example_input(loaded.spec, *loaded.network.input_sizes(loaded.spec).gate, seed=SEED)
    with torch.inference_mode():
        return Case(inputs, loaded(inputs))


def judge_precisions(
    spec: Spec,
    case: Case,
    simple: nn.Module,
    traced: torch.jit.ScriptModule,
    example: torch.Tensor,
) -> dict[str, dict[str, Any]]:
    """Returns ``{precision: {"passed": bool, "summary": str, ...}}``; see ``judge``.

    ``simple`` is the simplified module, ``traced`` its trace, ``example`` one input of it.
    """
    with torch.inference_mode():
        return {
            name: _fault(traced, dtype, example)
            or judge(spec, case.output, emulated(simple, dtype)(case.input))
            for name, dtype in DTYPES.items()
        }


def emulated(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of ``module`` with float32 inputs and outputs that rounds as one in ``dtype`` does."""

    def rounded(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.to(dtype).float()
        return tuple(map(rounded, value)) if isinstance(value, tuple) else value

    emulation = copy.deepcopy(module)
    emulation.register_forward_pre_hook(lambda _, inputs: rounded(inputs))
    exact = {
        inner
        for layer in emulation.modules()
        if isinstance(layer, InFloat32)
        for inner in layer.modules()
    }
    for layer in set(emulation.modules()) - exact:
        own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        for tensor in own:
            tensor.copy_(rounded(tensor))
        # Attention has parameters and a child that it does not call.
        if own or not list(layer.children()):
            layer.register_forward_hook(lambda _, _inputs, output: rounded(output))
    return emulation


def judge(spec: Spec, exact: torch.Tensor, reduced: torch.Tensor) -> dict[str, Any]:
    """Compares ``reduced``, outputs in reduced precision, with ``exact``; both (N, ...) float32."""
    if not reduced.isfinite().all():  # float16 ends at 65504
        return {"passed": False, "summary": "values outside its range"}
    if spec.output == "picture":
        low, high = spec.output_range
        steps = (reduced - exact).abs().mean().item() * 255 / (high - low)
        summary = f"pictures differ by {steps:.2g}/255 on average (limit {PICTURE_STEPS:g})"
        return {"picture_steps": steps, "passed": steps <= PICTURE_STEPS, "summary": summary}
    if spec.output == "features":
        return _judge_features(exact, reduced)
    error = ((reduced - exact).norm(dim=1) / exact.norm(dim=1)).mean().item()
    top = exact.softmax(1).topk(min(2, exact.shape[1])).values
    clear = (top[:, 0] - top[:, -1]) > MARGIN
    agrees = bool((reduced.argmax(1) == exact.argmax(1))[clear].all())
    shift = (reduced.softmax(1) - exact.softmax(1)).abs().max().item()
    return {
        "logits_error": error,
        "top1_agrees": agrees,
        "clear_pictures": int(clear.sum()),
        "largest_probability_shift": shift,
        "passed": error <= LOGITS_ERROR and agrees,
        "summary": f"logits differ by {error:.2%} (limit {LOGITS_ERROR:.0%}); top-1 "
        f"{'agrees' if agrees else 'differs'} on {int(clear.sum())} clear pictures",
    }


def _judge_features(exact: torch.Tensor, reduced: torch.Tensor) -> dict[str, Any]:
    cosine = F.cosine_similarity(exact.double(), reduced.double()).min().item()
    lengths = exact.norm(dim=1)
    error = ((reduced.norm(dim=1) - lengths).abs() / lengths).max().item()
    return {
        "cosine": cosine,
        "length_error": error,
        "passed": cosine >= COSINE and error <= LENGTH_ERROR,
        "summary": f"cosine of features {cosine:.6f} at least (limit {COSINE:g}); their lengths "
        f"differ by {error:.2%} at most (limit {LENGTH_ERROR:.0%})",
    }


def judge_float32(
    spec: Spec, cases: Sequence[Case], outputs: Sequence[torch.Tensor]
) -> dict[str, Any]:
    """Compares an engine's float32 ``outputs`` with those of ``cases``."""
    pairs = list(zip((case.output for case in cases), outputs, strict=True))
    if any(exact.shape != output.shape or not output.isfinite().all() for exact, output in pairs):
        return {"passed": False, "summary": "its outputs have other shapes, or are not finite"}
    if spec.output == "picture":
        low, high = spec.output_range
        worst = max((output - exact).abs().max().item() for exact, output in pairs)
        worst, limit, what = worst * 255 / (high - low), EXACT_STEPS, "of 255 steps"
    elif spec.output == "features":
        limit, what = EXACT_FEATURES, "of the largest feature"
        worst = max(relative_error(output, exact) for exact, output in pairs)
    else:
        limit, what = EXACT_PROBABILITY, "in probability"
        worst = max(
            (output.softmax(1) - exact.softmax(1)).abs().max().item() for exact, output in pairs
        )
    summary = f"float32 differs from eager by {worst:.1g} {what} at most (limit {limit:g})"
    return {"passed": worst <= limit, "summary": summary}


def _fault(
    traced: torch.jit.ScriptModule, dtype: torch.dtype, example: torch.Tensor
) -> dict[str, Any] | None:
    """The result for a trace that does not run in ``dtype``, else None.

    Constants in a trace keep their own type, which may not fit.
    """
    script = copy.deepcopy(traced)
    reduce(script, dtype)
    try:
        script(example.to(dtype))
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        return {"passed": False, "summary": f"the network does not run in it: {last}"}
    return None
