"""Module -> TorchScript with its golden example, judged by the accuracy gate."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.jit._trace import TracerWarning

from export.checkpoints import Loaded
from export.errors import ExportError
from export.gate import Case, gate_case, judge_precisions
from export.simplify import simplified
from export.standalone import relative_error
from export.untrained import example_input
from handlers.metadata import Spec

# Relative to the largest output. Traced and eager run the same kernels, so only rounding may
# differ; a constant baked into the trace differs by far more.
TOLERANCE = 1e-4
# A batch norm that is folded into the wrong layer changes the output by more than this.
MISFOLDED = 1e-2


@dataclass(frozen=True)
class Traced:
    """A traced network; ``precisions`` is as in ``Metadata``, the gate judged them on ``gate``.

    ``module`` is what was traced, the simplified network.
    """

    module: nn.Module
    script: torch.jit.ScriptModule
    golden: Case
    gate: Case
    precisions: Mapping[str, Mapping[str, Any]]


def trace(loaded: Loaded, path: Path) -> Traced:
    """Trace on the CPU into ``path``, a TorchScript file with the golden example."""
    spec = loaded.spec
    sizes = loaded.network.input_sizes(spec)
    example = example_input(spec, *sizes.trace)
    golden = example_input(spec, *sizes.golden, seed=1)
    with warnings.catch_warnings(), torch.no_grad():
        # TorchScript is deprecated, and is what this project delivers.
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        # Networks check sizes in Python; the proof finds what that bakes into the trace.
        warnings.filterwarnings("ignore", category=TracerWarning)
        output = loaded(golden)
        _check_output(spec, golden, output)
        simple = _simplified(loaded, golden, output)
        traced = torch.jit.trace(simple, example, check_trace=False)
        case = gate_case(loaded)
        precisions = judge_precisions(spec, case, simple, traced, golden)
        extra = {"golden_input.f32": raw(golden), "golden_output.f32": raw(output)}
        torch.jit.save(traced, path, _extra_files=extra)
    return Traced(simple, traced, Case(golden, output), case, precisions)


def _simplified(loaded: Loaded, golden: torch.Tensor, output: torch.Tensor) -> nn.Module:
    """The simplified module, or the module itself if that fails or gives other values."""
    try:
        simple = simplified(loaded.module, loaded.network.head)
        misfolded = relative_error(simple(golden), output) > MISFOLDED
    except ExportError:
        raise
    except Exception:  # noqa: BLE001  # the network may use what the replaced layers had
        return loaded.module
    return loaded.module if misfolded else simple


def _check_output(spec: Spec, golden: torch.Tensor, output: object) -> None:
    """Raise ExportError unless the network gives what its specification says."""
    n, _, height, width = golden.shape
    expected: tuple[int | str, ...] = (n, len(spec.labels))
    if spec.output == "picture":
        expected = (n, 3, spec.scale * height, spec.scale * width)
    elif spec.output == "features":
        expected = (n, "features")
        if isinstance(output, torch.Tensor) and output.ndim == 2:
            expected = (n, output.shape[1])
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != expected:
        shape = getattr(output, "shape", None)
        given = f"shape {tuple(shape)}" if shape is not None else type(output).__name__
        raise ExportError(
            f"{spec.name}: the network gives {given} for an input of shape {tuple(golden.shape)}; "
            f"its description needs {expected}"
        )


def raw(tensor: torch.Tensor) -> bytes:
    """Little-endian float32 in C order."""
    data: bytes = tensor.contiguous().numpy().astype("<f4").tobytes()
    return data
