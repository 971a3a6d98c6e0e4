"""The folder of artefacts: one writer at a time, and nothing half-written in it."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from export.errors import ExportError
from handlers.specs import SPECS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command of this package takes: which models, and where their artefacts are."""
    parser.add_argument(
        "model",
        nargs="*",
        type=_model,
        metavar="MODEL",
        help=" or ".join(SPECS) + "; default: both",
    )
    parser.add_argument(
        "--model-store", type=Path, default=Path("model_store"), metavar="DIR",
        help="folder of the artefacts (default: model_store)",
    )  # fmt: skip


@contextlib.contextmanager
def exclusive(folder: Path, busy: str, *, wait: bool = False) -> Iterator[None]:
    """Lock ``folder`` against other processes; it is made where it is missing.

    The lock is on the file ``.lock``, which is left behind. Where another process holds it, this
    raises ExportError(``busy``), or with ``wait`` prints ``busy`` and waits. The kernel releases
    the lock of a killed process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise ExportError(busy) from None
            print(f"  {busy}: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold ``store`` for writing; what a killed export left behind is removed first."""
    with exclusive(store, f"another export is writing to {store}"):
        for stale in (*store.glob(".export-*"), *store.glob(".archive-*")):
            shutil.rmtree(stale, ignore_errors=True)
        yield


def size(path: Path) -> str:
    """The file's size for a person, in decimal megabytes."""
    return f"{path.stat().st_size / 1e6:.1f} MB"


def _model(name: str) -> str:
    if name not in SPECS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SPECS)}")
    return name
