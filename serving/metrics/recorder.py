"""Counts what the gateway, the queue and the workers report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from serving.gateway.access_log import Ended
from serving.metrics.outcomes import SUCCESS, outcome
from serving.metrics.series import Series
from serving.metrics.workers import Reported

# More than handlers/reports.py sends at once.
_LARGEST_REPORT = 2**18
Report = dict[str, Any]


def ignore(_report: Report, _batch: Report) -> None:
    """Nobody traces requests."""


class Recorder:
    """Adds to ``series``, and keeps in ``reported`` what each worker serves.

    ``traced`` gets the report of a worker and each of its batches.
    """

    def __init__(
        self,
        series: Series,
        reported: Reported,
        traced: Callable[[Report, Report], None] = ignore,
    ) -> None:
        self._traced = traced
        self._series = series
        self._reported = reported

    def ended(self, ended: Ended) -> None:
        """Count a request that has ended; health checks that succeed are none."""
        code, error = outcome(ended)
        model = ended.model if ended.model in self._series.models else ""
        is_success = (code, error) == SUCCESS
        if is_success and not model:
            return
        labels = model, ended.version if model else "", "grpc" if ended.is_grpc else "rest"
        self._series.requests.labels(*labels, code, error).inc()
        if is_success and ended.seconds is not None:
            self._series.durations.labels(*labels).observe(ended.seconds)

    def waited(self, model: str, seconds: float) -> None:
        """A request has left the queue of ``model``."""
        self._series.waits.labels(model).observe(seconds)

    def lost(self, model: str, workers: int) -> None:
        """Workers of ``model`` have ended unexpectedly."""
        self._series.lost.labels(model).inc(workers)

    @contextlib.contextmanager
    def listening(self, path: Path) -> Iterator[None]:
        """Receive the workers' reports at the unix socket ``path``, in the running event loop."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.setblocking(False)
            path.unlink(missing_ok=True)
            receiver.bind(str(path))
            loop.add_reader(receiver, self._receive, receiver)
            try:
                yield
            finally:
                loop.remove_reader(receiver)

    def _receive(self, receiver: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            self.report(json.loads(receiver.recv(_LARGEST_REPORT)))

    def report(self, report: Report) -> None:
        """Count the batches in a worker's report (handlers/reports.py)."""
        model, series = report["model"], self._series
        if model not in series.models:
            return
        self._reported.update(report)
        for batch in report["batches"]:
            self._traced(report, batch)
            series.batches.labels(model).observe(batch["requests"])
            series.pixels.labels(model).inc(batch["pixels"])
            for stage, seconds in batch["stages"].items():
                series.stages.labels(model, stage).observe(seconds)
            for reason, number in batch["ended"].items():
                series.decoders.labels(model, reason).inc(number)
