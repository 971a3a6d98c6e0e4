"""LitServe as a rival, with the settings that suit this machine best."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from serving.errors import ServingError
from tools.bench.common import Task
from tools.bench.load import Load, measure
from tools.bench.spawn import spawned
from tools.bundle import free_addresses


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
        with spawned(command, log, lambda: self._answers(url, picture), signal.SIGKILL):
            yield url

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
