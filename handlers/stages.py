"""Where the time of a batch goes: seconds per stage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

# In the order of a request. TorchServe itself counts the queue: ``ts_queue_latency_microseconds``.
STAGES = ("decode", "preprocess", "network", "encode")

# Histograms. TorchServe's buckets end at 10: seconds and batch sizes fit, milliseconds do not.
SECONDS = "stage_seconds"
BATCH = "batch_members"


class Stages:
    """The seconds of one batch so far, by stage; 0 for a stage that never began."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the body as a part of ``stage``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def __str__(self) -> str:
        return ", ".join(f"{stage} {1e3 * spent:.1f} ms" for stage, spent in self.seconds.items())
