"""A process together with those that it has started."""

from __future__ import annotations

import psutil


def family(pid: int) -> list[psutil.Process]:
    """The process ``pid`` and its descendants; empty if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except (psutil.Error, ValueError):  # ValueError: TorchServe's -1 for a worker without a process
        return []
