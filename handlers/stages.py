"""Where the time of a batch goes: seconds per stage, for the log and for Prometheus."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes

# In a request's order. TorchServe itself counts the queue: ``ts_queue_latency_microseconds``.
STAGES = ("decode", "preprocess", "network", "encode")

# Histograms: TorchServe's buckets end at 10, so seconds and members of a batch fit, milliseconds do
# not.
SECONDS = "stage_seconds"
BATCH = "batch_members"


class Stages:
    """The seconds of one batch so far, by stage; what never began has none."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the body as a part of ``stage``."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begun

    def __str__(self) -> str:
        return ", ".join(f"{stage} {1e3 * spent:.1f} ms" for stage, spent in self.seconds.items())

    def report(self, metrics: Any, model: str, members: int) -> None:
        """Add to the histograms of ``metrics``, TorchServe's cache; a stage counts once a batch."""
        metrics.get_metric(BATCH, MetricTypes.HISTOGRAM).add_or_update(members, [model])
        histogram = metrics.get_metric(SECONDS, MetricTypes.HISTOGRAM)
        for stage, spent in self.seconds.items():
            histogram.add_or_update(round(spent, 6), [model, stage])


def declare(metrics: Any) -> None:
    """Make the histograms known to ``metrics``, once per worker."""
    metrics.add_metric_to_cache(SECONDS, "Seconds", ["ModelName", "Stage"], MetricTypes.HISTOGRAM)
    metrics.add_metric_to_cache(BATCH, "Count", ["ModelName"], MetricTypes.HISTOGRAM)
