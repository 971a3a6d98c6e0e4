"""Module -> TorchScript with everything that a worker needs.

A ``.pt`` is complete in itself. Its extra files are

``model.json``         the ``Metadata``: specification, labels, weights, gate, golden example
``golden_input.f32``   one input of the network, little-endian float32 in C order
``golden_output.f32``  eager PyTorch's output for it
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.jit._trace import TracerWarning

from export.checkpoints import Loaded
from export.errors import ExportError
from export.gate import judge_precisions
from export.simplify import simplified
from export.standalone import relative_error
from export.untrained import example_input
from handlers.metadata import Golden, Metadata, Spec

# Relative to the largest output. Traced and eager run the same kernels, so only rounding may
# differ; a constant baked into the trace differs by far more.
TOLERANCE = 1e-4
# A batch norm that is folded into the wrong layer changes the output by more than this.
MISFOLDED = 1e-2


def trace(loaded: Loaded, path: Path) -> Metadata:
    """Trace on the CPU into ``path``; returns the metadata that the file carries."""
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
        simple = simplified_or_same(loaded, golden, output)
        traced = torch.jit.trace(simple, example, check_trace=False)
        metadata = Metadata(
            name=spec.name,
            spec=spec,
            weights=loaded.weights,
            golden=Golden(tuple(golden.shape), tuple(output.shape)),
            precisions=judge_precisions(loaded, simple, traced, golden),
            torch=torch.__version__,
        )
        extra = {
            "model.json": json.dumps(metadata.to_map(), indent=1).encode(),
            "golden_input.f32": _raw(golden),
            "golden_output.f32": _raw(output),
        }
        torch.jit.save(traced, path, _extra_files=extra)
    return metadata


def simplified_or_same(loaded: Loaded, example: torch.Tensor, output: torch.Tensor) -> nn.Module:
    """The simplified module, or the module itself if that fails or gives other than ``output``."""
    try:
        simple = simplified(loaded.module, loaded.network.head)
        misfolded = relative_error(simple(example), output) > MISFOLDED
    except ExportError:
        raise
    except Exception:  # noqa: BLE001  # the network may use what the replaced layers had
        return loaded.module
    return loaded.module if misfolded else simple


def _check_output(spec: Spec, golden: torch.Tensor, output: object) -> None:
    """Raise ExportError unless the network gives what its specification says."""
    n, _, height, width = golden.shape
    expected: tuple[int, ...] = (n, len(spec.labels))
    if spec.output == "picture":
        expected = (n, 3, spec.scale * height, spec.scale * width)
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != expected:
        shape = getattr(output, "shape", None)
        given = f"shape {tuple(shape)}" if shape is not None else type(output).__name__
        raise ExportError(
            f"{spec.name}: the network gives {given} for an input of shape {tuple(golden.shape)}; "
            f"its description needs {expected}"
        )


def _raw(tensor: torch.Tensor) -> bytes:
    data: bytes = tensor.contiguous().numpy().astype("<f4").tobytes()
    return data
