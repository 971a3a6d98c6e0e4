"""Starts child processes that end with this one.

Run as a script, this module prepares its own process and then executes the command in its
arguments. This is safe in a process with threads; a ``preexec_fn`` is not.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def bound(command: Sequence[str]) -> list[str]:
    """``command``, which will get SIGTERM when this process dies (Linux).

    Its stop signals are reset: under nohup, or with & in a script, some are ignored, and children
    inherit that.
    """
    return [sys.executable, "-IS", str(Path(__file__).resolve()), str(os.getpid()), *command]


def main(parent: str, *command: str) -> None:
    """Become ``command``; ``parent`` is the id of the process that started this one."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before that, and there will be no signal
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
