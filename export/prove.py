"""Proves that a ``.pt``, in TorchScript and in OpenVINO, and a ``.pt2`` equal eager PyTorch."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from export import child
from export.checkpoints import Loaded
from export.errors import ExportError
from export.gate import Case, judge, judge_float32
from export.trace import TOLERANCE, Traced
from export.untrained import example_input
from handlers.metadata import Spec

TIMEOUT_S = 900
STANDALONE = Path(__file__).with_name("standalone.py")


@dataclass(frozen=True)
class Proof:
    """``torchscript`` is ``{"tolerance", "worst", "cases": [{"shape", "error", "seconds"}, ...]}``,
    ``openvino`` its part of ``Metadata.engines``, or None if the file has no network for it.
    ``cases`` are the inputs, with the outputs of eager PyTorch.
    """

    cases: list[Case]
    torchscript: dict[str, Any]
    openvino: dict[str, Any] | None


def eager_cases(loaded: Loaded, progress: Callable[[str], None] = lambda _: None) -> list[Case]:
    """Inputs of several batch and picture sizes, with the outputs of eager PyTorch."""
    cases = []
    for i, (n, height, width) in enumerate(loaded.network.input_sizes(loaded.spec).proof):
        progress(f"eager {n}x3x{height}x{width}")
        example = example_input(loaded.spec, n, height, width, seed=i)
        cases.append(Case(example, loaded(example)))
    return cases


def prove(
    loaded: Loaded,
    traced: Traced,
    path: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> Proof:
    """Compare ``path`` with eager PyTorch in a fresh process.

    Raises ExportError if TorchScript differs; OpenVINO's verdict is in the proof.
    """
    cases = [traced.golden, *eager_cases(loaded, progress), traced.gate]
    with tempfile.TemporaryDirectory(prefix="proof-") as name:
        folder = Path(name)
        torch.save([vars(case) for case in cases], folder / "cases.pt")
        progress("traced, in a fresh process")
        run = _run_standalone(path, folder)
        reports = [json.loads(line) for line in run.stdout.splitlines()]
        if not reports:
            raise ExportError(
                f"the traced network does not run in a fresh process: {child.last_line(run)}"
            )
        torchscript = _judge_torchscript(reports[0])
        if len(reports) == 2:
            outputs = torch.load(folder / "outputs.pt", weights_only=True)
            verdict = _judge_openvino(loaded.spec, cases, outputs)
            return Proof(cases, torchscript, verdict | reports[1])
    if run.returncode:
        ended = child.last_line(run) or f"it ended with status {run.returncode}"
        return Proof(cases, torchscript, {"passed": False, "summary": f"it does not run: {ended}"})
    return Proof(cases, torchscript, None)


def prove_package(cases: Sequence[Case], path: Path) -> dict[str, Any]:
    """Compare a ``.pt2`` or ``.aoti.pt2`` with eager PyTorch in a fresh process.

    Returns ``{"tolerance", "worst", "cases"}``, of which the first is the file's golden example, or
    ``{"failed": reason}``.
    """
    with tempfile.TemporaryDirectory(prefix="proof-") as name:
        folder = Path(name)
        torch.save([vars(case) for case in cases], folder / "cases.pt")
        run = _run_standalone(path, folder)
    if run.returncode:
        return {"failed": f"does not run in a fresh process: {child.last_line(run)}"}
    report = json.loads(run.stdout)
    worst = _worst(report)
    if worst > TOLERANCE:
        return {"failed": f"differs from eager PyTorch by {worst:.2g}, allowed {TOLERANCE:g}"}
    return {"tolerance": TOLERANCE, "worst": worst, **report}


def _judge_torchscript(report: dict[str, Any]) -> dict[str, Any]:
    if report["foreign"]:
        raise ExportError("the traced network needs this project's code; nothing was kept")
    if devices := report["devices"]:
        raise ExportError(f"the traced network holds a device, {devices[0]}; nothing was kept")
    worst = _worst(report)
    if worst > TOLERANCE:
        raise ExportError(
            f"the traced network differs from eager PyTorch: relative error {worst:.2g}, "
            f"allowed {TOLERANCE:g}; nothing was kept"
        )
    return {"tolerance": TOLERANCE, "worst": worst, "cases": report["cases"]}


def _worst(report: dict[str, Any]) -> float:
    errors = [case["error"] for case in report["cases"]]
    # max() ignores a NaN that is not the first.
    return max(errors) if all(map(math.isfinite, errors)) else math.inf


def _judge_openvino(
    spec: Spec, cases: Sequence[Case], outputs: Mapping[str, Sequence[torch.Tensor]]
) -> dict[str, Any]:
    """``outputs`` are by precision: float32 for all ``cases``, bfloat16 for the last if any."""
    exact = judge_float32(spec, cases, outputs["float32"])
    reduced = {
        name: judge(spec, cases[-1].output, each[-1])
        for name, each in outputs.items()
        if name != "float32"
    }
    return {**exact, "precisions": reduced}


def _run_standalone(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    files = path, folder / "cases.pt", folder / "outputs.pt"
    late = f"the traced network took more than {TIMEOUT_S} s to prove"
    return child.run(STANDALONE, *files, scratch=folder, timeout_s=TIMEOUT_S, late=late)
