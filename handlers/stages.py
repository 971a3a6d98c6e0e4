"""The time that a batch spends in each stage, and the names of the metrics for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

# In order. TorchServe measures the queue itself: ``ts_queue_latency_microseconds``.
STAGES = ("decode", "preprocess", "network", "encode")

# Histograms, in seconds because TorchServe's largest bucket is 10: milliseconds would not fit.
SECONDS = "stage_seconds"
BATCH = "batch_members"
# Counter: decode processes that were ended because they tried what no decoder does.
VIOLATIONS = "decode_violations_total"


class Stages:
    """The seconds that one batch has spent in each stage so far.

    ``began`` is when the batch did, and ``periods`` are the first start and the last end of each
    stage, all on the clock ``time.perf_counter``.
    """

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.periods: dict[str, tuple[float, float]] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of the body to ``stage``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            self.seconds[stage] += ended - started
            self.periods[stage] = self.periods.get(stage, (started, ended))[0], ended

    def __str__(self) -> str:
        return ", ".join(f"{stage} {1e3 * spent:.1f} ms" for stage, spent in self.seconds.items())
