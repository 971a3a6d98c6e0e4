"""The model store: one writer at a time, and no half-written files."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from export.errors import ExportError

DEFAULT = Path("model_store")


@contextlib.contextmanager
def exclusive(folder: Path, busy: str, *, wait: bool = False) -> Iterator[None]:
    """Lock ``folder`` against other processes, and create it if it is missing.

    The lock is on the file ``.lock``, which stays. If another process holds it, this raises
    ExportError(``busy``), or with ``wait`` prints ``busy`` and waits. The kernel releases the lock
    of a killed process.
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
    """Hold ``store`` for writing, and remove what a killed export left behind."""
    with exclusive(store, f"another export is writing to {store}"):
        for stale in (*store.glob(".export-*"), *store.glob(".archive-*")):
            shutil.rmtree(stale, ignore_errors=True)
        yield


def size(path: Path) -> str:
    """The file's size for a person, in decimal megabytes."""
    return f"{path.stat().st_size / 1e6:.1f} MB"
