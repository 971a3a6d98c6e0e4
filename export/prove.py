"""Proves that a ``.pt`` gives the outputs of eager PyTorch."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
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
    loaded: Loaded, path: Path, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Compare ``path`` with eager PyTorch in a fresh process; ExportError if it differs.

    Returns ``{"tolerance", "worst", "golden", "cases": [{"shape", "error", "seconds"}, ...]}``.
    """
    cases = []
    for i, (n, height, width) in enumerate(loaded.network.input_sizes(loaded.spec).proof):
        progress(f"eager {n}x3x{height}x{width}")
        example = example_input(loaded.spec, n, height, width, seed=i)
        cases.append({"input": example, "output": loaded(example)})
    progress("traced, in a fresh process")
    report = _run_standalone(path, cases)
    errors = [report["golden"], *(case["error"] for case in report["cases"])]
    # max() ignores a NaN that is not the first.
    worst = max(errors) if all(map(math.isfinite, errors)) else math.inf
    if report.pop("foreign"):
        raise ExportError("the traced network needs this project's code; nothing was kept")
    if devices := report.pop("devices"):
        raise ExportError(f"the traced network holds a device, {devices[0]}; nothing was kept")
    if worst > TOLERANCE:
        raise ExportError(
            f"the traced network differs from eager PyTorch: relative error {worst:.2g}, "
            f"allowed {TOLERANCE:g}; nothing was kept"
        )
    return {"tolerance": TOLERANCE, "worst": worst, **report}


def _run_standalone(path: Path, cases: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="proof-") as folder:
        file = Path(folder) / "cases.pt"
        torch.save(cases, file)
        try:
            run = subprocess.run(
                [sys.executable, "-I", str(STANDALONE), str(path.resolve()), str(file)],
                cwd=folder,
                # tempfile tests its folder with a file, which an interrupt would leave behind.
                env={**os.environ, "TMPDIR": folder},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(
                f"the traced network took more than {TIMEOUT_S} s to prove"
            ) from error
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:]
        raise ExportError(f"the traced network does not run in a fresh process: {''.join(last)}")
    report: dict[str, Any] = json.loads(run.stdout)
    return report
