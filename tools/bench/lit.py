"""LitServe as a rival, with the settings that suit this machine best."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from serving.errors import ServingError
from tools.bench.common import Task
from tools.bench.load import Load, measure
from tools.bundle import ROOT, free_addresses

START_TIMEOUT_S = 300


class Tuning(NamedTuple):
    """``workers`` share the cores; a batch of up to 8 is complete after ``wait_s``."""

    workers: int
    wait_s: float


# The first won on two cores; a quick run takes it.
TUNINGS = (Tuning(1, 0.01), Tuning(1, 0.0), Tuning(1, 0.05), Tuning(2, 0.01))


@dataclass(frozen=True)
class Server:
    """A server of the plain trace ``pt`` in ``precision`` on ``device``, cpu or gpu."""

    pt: Path
    precision: str
    device: str

    @contextlib.contextmanager
    def started(self, tuning: Tuning, picture: Path) -> Iterator[str]:
        """Its URL, once it has answered ``picture``."""
        url = free_addresses("inference")["inference_address"]
        command = [sys.executable, "-m", "tools.bench.litserve_server", str(self.pt.resolve())]
        command += [self.precision, url.rpartition(":")[2], f"--device={self.device}"]
        command += [f"--workers={tuning.workers}", f"--batch-timeout={tuning.wait_s}"]
        log = self.pt.with_suffix(".litserve.log")
        with log.open("wb") as output:
            server = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not self._answers(url, picture):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise ServingError(f"LitServe did not start: see {log}")
                time.sleep(0.5)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    def _answers(self, url: str, picture: Path) -> bool:
        try:
            measure(Load("", url, self.pt.stem, picture, seconds=0, clients=1))
        except ServingError:
            return False
        return True

    def best(self, picture: Path, task: Task) -> Tuning:
        """Of TUNINGS, the one with the highest throughput."""
        rates = {}
        for tuning in TUNINGS:
            with self.started(tuning, picture) as url:
                how = url, self.pt.stem, picture
                measure(Load("warm-up", *how, task.seconds / 2, task.clients))
                rates[tuning] = measure(Load("", *how, task.seconds, task.clients)).rate
            logging.info("LitServe, %s: %.2f pictures/s", tuning, rates[tuning])
        return max(rates, key=rates.__getitem__)
