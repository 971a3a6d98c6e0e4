"""Module -> TorchScript, proved equal to eager PyTorch before it is kept.

A ``.pt`` is complete in itself. Its extra files are

``model.json``         specification, labels, weights, how to read the golden example
``golden_input.f32``   one small input of the network, little-endian float32 in C order
``golden_output.f32``  eager PyTorch's output for it
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.jit._trace import TracerWarning

from export.errors import ExportError
from export.gate import measure
from export.models import Network
from export.simplify import simplified
from export.untrained import example_input

# Relative to the largest output. Traced and eager run the same kernels, so rounding is all that may
# differ; a constant baked into the trace differs by far more.
TOLERANCE = 1e-4
PROOF_TIMEOUT_S = 900

# (N, H, W): lone and batched, square and not, so that nothing of the example stays in the trace.
CASES = {
    "classes": ((1, 224, 224), (5, 224, 224), (2, 160, 288)),
    "picture": ((1, 64, 64), (5, 64, 64), (1, 256, 256), (5, 96, 156)),
}


def trace(network: Network, path: Path) -> dict[str, Any]:
    """Trace ``network`` on the CPU into ``path``; returns the metadata that it carries."""
    example = example_input(network.spec, 2, 64, 96)
    golden = example_input(network.spec, 1, 64, 64, seed=1)
    with warnings.catch_warnings():
        # TorchScript is what this project delivers; that it is deprecated is no news here.
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        # group_norm checks its input's size in Python; the proof covers what that could bake in.
        warnings.filterwarnings("ignore", category=TracerWarning)
        with torch.no_grad():
            output = network.module(golden)
            module = simplified(network.module)
            traced = torch.jit.trace(module, example, check_trace=False)
        metadata = _metadata(network, golden, output)
        metadata["precisions"] = measure(network)
        extra = {
            "model.json": json.dumps(metadata, indent=1).encode(),
            "golden_input.f32": _raw(golden),
            "golden_output.f32": _raw(output),
        }
        torch.jit.save(traced, path, _extra_files=extra)
    return metadata


def prove(
    network: Network, path: Path, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Check ``path`` against eager ``network`` in a fresh process; ExportError where it differs.

    Returns ``{"golden": error, "cases": [{"shape", "error", "seconds"}, ...], "tolerance": ...}``.
    """
    cases = []
    for i, (n, height, width) in enumerate(CASES[network.spec.output]):
        progress(f"eager {n}x3x{height}x{width}")
        example = example_input(network.spec, n, height, width, seed=i)
        with torch.no_grad():
            cases.append({"input": example, "output": network.module(example)})
    progress("traced, in a fresh process")
    with tempfile.TemporaryDirectory(prefix="proof-") as folder:
        file = Path(folder) / "cases.pt"
        torch.save(cases, file)
        command = [
            sys.executable,
            "-I",
            str(Path(__file__).with_name("prove.py")),
            str(path.resolve()),
            str(file),
        ]
        try:
            run = subprocess.run(
                command,
                cwd=folder,
                # tempfile tries its folder with a file, which an interrupt would leave behind.
                env={**os.environ, "TMPDIR": folder},
                capture_output=True,
                text=True,
                timeout=PROOF_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            limit = f"{PROOF_TIMEOUT_S} s"
            raise ExportError(f"the traced network took more than {limit} to prove") from error
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:]
        raise ExportError(f"the traced network does not run by itself: {''.join(last)}")
    found = json.loads(run.stdout)
    errors = [found["golden"], *(case["error"] for case in found["cases"])]
    # max() alone would pass over a NaN that is not the first.
    worst = max(errors) if all(map(math.isfinite, errors)) else math.inf
    if found.pop("foreign"):
        raise ExportError("the traced network needs this project's code; nothing was kept")
    if devices := found.pop("devices"):
        raise ExportError(f"the traced network holds a device, {devices[0]}; nothing was kept")
    if worst > TOLERANCE:
        raise ExportError(
            f"the traced network differs from eager PyTorch: relative error {worst:.2g}, "
            f"allowed {TOLERANCE:g}; nothing was kept"
        )
    return {"tolerance": TOLERANCE, "worst": worst, **found}


def _metadata(network: Network, golden: torch.Tensor, output: torch.Tensor) -> dict[str, Any]:
    return {
        "name": network.spec.name,
        "spec": dataclasses.asdict(network.spec),
        "weights": network.weights,
        "golden": {
            "dtype": "float32, little-endian, C order",
            "input_shape": list(golden.shape),
            "output_shape": list(output.shape),
        },
        "torch": torch.__version__,
    }


def _raw(tensor: torch.Tensor) -> bytes:
    data: bytes = tensor.contiguous().numpy().astype("<f4").tobytes()
    return data
