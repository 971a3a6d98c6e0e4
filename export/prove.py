"""Proves that the exported files give the outputs of eager PyTorch."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from export.checkpoints import Loaded
from export.errors import ExportError
from export.trace import TOLERANCE
from export.untrained import example_input

TIMEOUT_S = 900
STANDALONE = Path(__file__).with_name("standalone.py")


def prove(
    loaded: Loaded, *paths: Path, progress: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Compare each file with eager PyTorch, in a fresh process.

    Returns for each ``{"tolerance", "worst", "golden", "cases": [{"shape", "error", "seconds"},
    ...]}``, or ``{"failed": reason}`` if it differs or does not run.
    """
    cases = []
    for i, (n, height, width) in enumerate(loaded.network.input_sizes(loaded.spec).proof):
        progress(f"eager {n}x3x{height}x{width}")
        example = example_input(loaded.spec, n, height, width, seed=i)
        cases.append({"input": example, "output": loaded(example)})
    progress("in a fresh process")
    return [_judged(report) for report in _run_standalone(paths, cases)]


def _judged(report: dict[str, Any]) -> dict[str, Any]:
    """The proof of one file: ``report`` is a line of standalone.py."""
    if "error" in report:
        return {"failed": f"does not run in a fresh process: {report['error']}"}
    if report.pop("foreign"):
        return {"failed": "needs this project's code"}
    if devices := report.pop("devices"):
        return {"failed": f"holds a device, {devices[0]}"}
    errors = [report["golden"], *(case["error"] for case in report["cases"])]
    # max() ignores a NaN that is not the first.
    worst = max(errors) if all(map(math.isfinite, errors)) else math.inf
    if worst > TOLERANCE:
        return {
            "failed": f"differs from eager PyTorch: relative error {worst:.2g}, "
            f"allowed {TOLERANCE:g}"
        }
    return {"tolerance": TOLERANCE, "worst": worst, **report}


def _run_standalone(
    paths: Sequence[Path], cases: list[dict[str, torch.Tensor]]
) -> list[dict[str, Any]]:
    """The reports of standalone.py; a file that ends the process has an error, as have the next."""
    with tempfile.TemporaryDirectory(prefix="proof-") as folder:
        file = Path(folder) / "cases.pt"
        torch.save(cases, file)
        artefacts = [str(path.resolve()) for path in paths]
        try:
            run = subprocess.run(
                [sys.executable, "-I", str(STANDALONE), str(file), *artefacts],
                cwd=folder,
                # tempfile tests its folder with a file, which an interrupt would leave behind.
                env={**os.environ, "TMPDIR": folder},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"the proof took more than {TIMEOUT_S} s") from error
    reports: list[dict[str, Any]] = [json.loads(line) for line in run.stdout.splitlines()]
    last = "".join(run.stderr.strip().splitlines()[-1:])
    ended = {"error": f"exit status {run.returncode}: {last}"}
    return reports + [ended] * (len(paths) - len(reports))
