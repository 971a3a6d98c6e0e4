"""What a server and all processes below it use."""

from __future__ import annotations

import contextlib
import time

import psutil


def memory(process: psutil.Process) -> float:
    """Bytes: a page that several processes share counts once (PSS)."""
    total = 0.0
    for member in _family(process):
        with contextlib.suppress(psutil.Error):
            total += member.memory_full_info().pss
    return total


def cpu_seconds(process: psutil.Process) -> dict[str, float]:
    """The CPU time of the processes that run now, by the first word of their command line."""
    seconds: dict[str, float] = {}
    for member in _family(process):
        with contextlib.suppress(psutil.Error, IndexError):
            times = member.cpu_times()
            name = member.cmdline()[0]
            seconds[name] = seconds.get(name, 0.0) + times.user + times.system
    return seconds


def idle(process: psutil.Process, seconds: float) -> float:
    """CPU time per second while nothing is asked of the server, measured for ``seconds``."""
    before = sum(cpu_seconds(process).values())
    time.sleep(seconds)
    return (sum(cpu_seconds(process).values()) - before) / seconds


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]
