"""Our own server on an untrained export, started and stopped by the commands a person uses."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.processes import ROOT, free_addresses
from benchmarks.server import Server
from serving.config import Config
from serving.management import Management
from serving.runfolder import RunFolder


def export(store: Path) -> None:
    """Both networks untrained, into ``store``; what is current there is kept."""
    _run("export", "--weights", "random", "--model-store", str(store))


@contextlib.contextmanager
def bundle(
    store: Path, folder: Path, device: str, workers: int | None = None, **changes: str
) -> Iterator[Server]:
    """A server of both models that answers, with its configuration, state and logs in ``folder``.

    ``device`` is auto, gpu or cpu; ``workers`` of each model, by default as `make serve` decides;
    ``changes`` are to config.properties.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bench.properties"
    repository = Config.read(ROOT / "config.properties")
    repository.write(path, model_store=str(store.resolve()), **free_addresses(), **changes)
    where = ["--config", str(path), "--run-dir", str(folder)]
    options = ["--device", device, *(["--workers", str(workers)] if workers else [])]
    _run("serving", "stop", *where)  # what a bench that was killed has left
    started = time.monotonic()
    try:
        _run("serving", "start", *where, *options)
        start_s = time.monotonic() - started
        config = Config.read(path)
        yield Server(config, Management(config, RunFolder(folder)), start_s)
    finally:
        _run("serving", "stop", *where)


def _run(module: str, *arguments: str) -> None:
    """``python -m module arguments`` to its end; what it says goes to standard error."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)
    if done.returncode:
        raise BenchError(f"python -m {module} {arguments[0]} ended with status {done.returncode}")
