"""The folder of artefacts: one writer at a time, and nothing half-written in it."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from export.errors import ExportError

STORE = Path("model_store")


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold ``store`` for writing; what a killed export left behind is removed first."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(f"another export is writing to {store}") from None
        for stale in (*store.glob(".export-*"), *store.glob(".archive-*")):
            shutil.rmtree(stale, ignore_errors=True)
        yield


def size(path: Path) -> str:
    """The file's size for a person, in decimal megabytes."""
    return f"{path.stat().st_size / 1e6:.1f} MB"
