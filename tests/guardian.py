"""Ends what a test run has started, servers in the background included, once the run is gone.

A run that is killed cannot finish its fixtures. Every process that it starts inherits a variable
whose value is the run's own. A process in a session of its own waits for the run's end,
then ends all that have it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid

import psutil

VARIABLE = "TEST_RUN"
# A supervisor ends TorchServe and removes its temporary files meanwhile.
STOP_TIMEOUT_S = 30


class Guardian:
    """Guards this process from now on, and what it starts from now on."""

    def __init__(self) -> None:
        run = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, __file__, run],
            env={**os.environ, VARIABLE: ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what is sent to the run's process group is not for this one
        )
        os.environ[VARIABLE] = run

    def close(self) -> None:
        """End what is left now."""
        self._process.communicate(timeout=2 * STOP_TIMEOUT_S)


def main() -> None:
    sys.stdin.read()  # until the run closes its end of the pipe, or is gone
    left = _processes(sys.argv[1])
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(left, STOP_TIMEOUT_S)
    for process in _processes(sys.argv[1]):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _processes(run: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(VARIABLE) == run:
                found.append(process)
    return found


if __name__ == "__main__":
    main()
