"""Made-up measurements that meet every goal exactly."""

from __future__ import annotations

from typing import Any

from benchmarks.bare import Time
from benchmarks.goals import Round
from benchmarks.load import Outcome


def outcome(throughput: float, p50: float = 100.0, p99: float = 100.0) -> Outcome:
    """Ninety answers after ``p50`` ms, ten after ``p99``."""
    return Outcome([p50] * 90 + [p99] * 10, throughput, {}, 0.1, (1.0, 1.0))


def a_round(**changes: Any) -> Round:
    """Bare network 40 ms, pipeline 44 ms a picture; all else at the bars of resnet101."""
    rest = 0.9 * 1e3 / 44.0
    figures: dict[str, Any] = {
        "network": Time(40.0, 8, 500 * 2**20),
        "network_one": Time(50.0, 1, 500 * 2**20),
        "decode": Time(10.0, 1, 500 * 2**20),
        "pipeline": Time(44.0, 8, 500 * 2**20),
        "stock": outcome(rest / 2.4),
        "stock_one": outcome(rest / 2.0),
        "rest": outcome(rest, p50=400.0, p99=800.0),
        "grpc": outcome(rest),
        "lone": outcome(1e3 / 68, p50=68.0),
        "large": outcome(0.6 * rest),
        "small": outcome(rest),
        "worker_rss": 650 * 2**20,
    }
    return Round(**{**figures, **changes})
