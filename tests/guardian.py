"""Ends every process that a test run has started, background servers included, after the run.

A run that is killed cannot finish its fixtures. Every process that it starts inherits a variable
with a value of this run alone. A process in a session of its own waits until the run has ended,
then ends all processes with that value.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid

import psutil

VARIABLE = "TEST_RUN"
# In this time a supervisor stops TorchServe and removes its temporary files.
STOP_TIMEOUT_S = 30


class Guardian:
    """Guards this process, and the processes that it starts from now on."""

    def __init__(self) -> None:
        run = uuid.uuid4().hex
        self._process = subprocess.Popen(
            # -P: keep modules of this folder, such as types, from hiding those of Python.
            [sys.executable, "-P", __file__, run],
            env={**os.environ, VARIABLE: ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # signals to the run's process group must not reach it
        )
        os.environ[VARIABLE] = run

    def close(self) -> None:
        """End what is left."""
        self._process.communicate(timeout=2 * STOP_TIMEOUT_S)


def main() -> None:
    sys.stdin.read()  # returns when the run closes its end of the pipe or has died
    left = _processes(sys.argv[1])
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(left, STOP_TIMEOUT_S)
    for process in _processes(sys.argv[1]):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _processes(run: str) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(VARIABLE) == run:
                processes.append(process)
    return processes


if __name__ == "__main__":
    main()
