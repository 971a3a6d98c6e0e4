"""Measurements -> the project's goals for its speed and memory, each met or not.

Every goal is a ratio or a difference within one round, so that a machine that slows down does so
for both sides; what is judged is the median over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.bare import Time
from benchmarks.load import Outcome

# Clients of the closed loops that the goals are about.
CLIENTS = {"resnet101": 16, "cyclegan": 4}


@dataclass(frozen=True)
class Round:
    """One model's measurements, taken one after the other.

    ``network`` and ``pipeline`` are the bare process's in its best batch, ``network_one`` and
    ``decode`` of one picture. The outcomes are of 1280x720 over REST with CLIENTS, unless their
    names say otherwise; ``lone`` is one client, ``stock`` stock TorchServe with its defaults and
    ``stock_one`` with one worker. ``worker_rss`` is in bytes.
    """

    network: Time
    network_one: Time
    decode: Time
    pipeline: Time
    stock: Outcome
    stock_one: Outcome
    rest: Outcome
    grpc: Outcome
    lone: Outcome
    large: Outcome
    small: Outcome
    worker_rss: float


@dataclass(frozen=True)
class Goal:
    """``measured`` is to be at least ``bar``, or at most where ``at_most``."""

    text: str
    measured: float
    bar: float
    at_most: bool = False
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.measured <= self.bar if self.at_most else self.measured >= self.bar


def goals(rounds: Mapping[str, Sequence[Round]], start_s: float) -> list[Goal]:
    """All of them, from the rounds of each model and the seconds from start to true answers."""
    resnet, cyclegan = rounds["resnet101"], rounds["cyclegan"]
    return [
        Goal(
            "resnet101, 16 clients: of the bare pipeline",
            _median(resnet, lambda r: r.rest.throughput / r.pipeline.rate), 0.90,
        ),
        Goal(
            "resnet101, 16 clients: times stock, defaults",
            _median(resnet, lambda r: r.rest.throughput / r.stock.throughput), 2.4,
        ),
        Goal(
            "resnet101: bare pipeline over the bare network",
            _median(resnet, lambda r: r.pipeline.ms / r.network.ms), 1.10, at_most=True,
        ),
        Goal(
            "cyclegan, 4 clients: of the bare pipeline",
            _median(cyclegan, lambda r: r.rest.throughput / r.pipeline.rate), 0.90,
        ),
        Goal(
            "cyclegan, 4 clients: times a plain float32 handler",
            _median(cyclegan, lambda r: r.rest.throughput / r.stock.throughput), 1.9,
        ),
        Goal(
            "resnet101, lone client: p50 over network and decode",
            _median(resnet, lambda r: r.lone.p50 - r.network_one.ms - r.decode.ms), 8.0,
            at_most=True, unit="ms",
        ),
        Goal(
            "resnet101, 16 clients: p99 over p50",
            _median(resnet, lambda r: r.rest.p99 / r.rest.p50), 2.0, at_most=True,
        ),
        Goal(
            "resnet101: 12 MP throughput over 1280x720",
            _median(resnet, lambda r: r.large.throughput / r.rest.throughput), 0.6,
        ),
        *(
            Goal(
                f"{model}: gRPC throughput over REST",
                _median(found, lambda r: r.grpc.throughput / r.rest.throughput), 1.0,
            )
            for model, found in rounds.items()
        ),
        *(
            Goal(
                f"{model}: worker memory over the bare process",
                _median(found, lambda r: r.worker_rss / r.network.rss), 1.3, at_most=True,
            )
            for model, found in rounds.items()
        ),
        Goal("start to true answers of both models", start_s, 20.0, at_most=True, unit="s"),
    ]  # fmt: skip


def _median(rounds: Sequence[Round], value: Callable[[Round], float]) -> float:
    return statistics.median(map(value, rounds))
