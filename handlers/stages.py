"""What a batch costs: the time in each stage, and the pixels that the network computes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

# The environment variable with the socket of handlers/reports.py.
REPORTS = "VISION_REPORTS"

# In order.
STAGES = ("decode", "preprocess", "network", "encode")

# Why decode processes end; each is replaced. ``crash``: the picture crashed it; ``violation``: it
# tried what no decoder does; ``time``: at the limit decode_seconds; ``deadline``: at the end of the
# batch's time; ``grown``: its memory had; ``killed``: from outside, perhaps because memory ran out.
ENDED = ("crash", "violation", "time", "deadline", "grown", "killed")


class Stages:
    """The seconds that one batch has spent in each stage so far; ``pixels`` of its inputs.

    ``began`` is when the batch did, and ``periods`` are the first start and the last end of each
    stage, all on the clock ``time.perf_counter``.
    """

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.periods: dict[str, tuple[float, float]] = {}
        self.pixels = 0

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
