"""Starts child processes that end with this one.

Run as a script, it prepares its own process and becomes the command in its arguments. The child of
a process with threads can do so safely, unlike a ``preexec_fn``.
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
    return [sys.executable, "-IS", str(Path(__file__).resolve()), *command]


def main() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606


if __name__ == "__main__":
    main()
