"""The load generator: clients in processes of their own, so that their CPU use is known apart.

``python -m benchmarks.load`` reads a Load as a line of JSON and prints an Outcome as another.

Ours, because no established one fits: locust needs gevent, and measures neither open loop without
coordinated omission nor gRPC by itself; wrk, vegeta and ghz are no Python packages, and each does a
part.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.loops import Ask, Run, closed, open_loop
from benchmarks.processes import python, receive_line, send_line
from benchmarks.senders import Grpc, Rest, channel

Route = Literal["rest", "grpc"]

PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}

# Clients of an open loop: as many as a server may hold requests, its queue of 100 and a batch.
OPEN_CLIENTS = 128
# A process of Python threads sends from one core at most; above this share it may be what limits.
BUSY = 0.8
# One process of clients for so many cores of the machine.
CORES_A_PROCESS = 8


@dataclass(frozen=True)
class Load:
    """What to send where, and how: ``clients`` in a closed loop, or an open one of ``rate``.

    ``address`` is ``host:port``, ``picture`` the path of a file, ``rate`` in requests/s; what comes
    in the first ``warm`` seconds is not counted.
    """

    route: Route
    address: str
    model: str
    picture: str
    seconds: float
    warm: float
    clients: int = 0
    rate: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What clients saw.

    ``latencies`` are those of the good answers in ms, sorted; ``throughput`` good answers per
    second; ``errors`` counts the others by what was wrong. ``cpu`` is the busiest process's CPU
    seconds per second. ``waiting`` is the mean number of requests between due and answered, over
    the first and over the second half of the window.
    """

    latencies: list[float]
    throughput: float
    errors: dict[str, int]
    cpu: float
    waiting: tuple[float, float]

    @property
    def p50(self) -> float:
        return percentile(self.latencies, 0.50)

    @property
    def p95(self) -> float:
        return percentile(self.latencies, 0.95)

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 0.99)

    @property
    def bottleneck(self) -> bool:
        """Whether the clients may have been what limited the throughput."""
        return self.cpu > BUSY

    @property
    def grows(self) -> bool:
        """Whether ever more requests waited: more came than were answered."""
        first, second = self.waiting
        return second > 2 * first + 4  # a few more or less come by chance


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed; NaN of none."""
    if not ordered:
        return float("nan")
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def measure(load: Load) -> Outcome:
    """Run ``load`` in processes of its own, and wait for what it saw."""
    shares = split(load, max(1, (os.cpu_count() or 1) // CORES_A_PROCESS))
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(python("benchmarks.load")) for _ in shares]
        for child, share in zip(children, shares, strict=True):
            send_line(child, dataclasses.asdict(share))
        return merge([Outcome(**receive_line(child)) for child in children])


def split(load: Load, processes: int) -> list[Load]:
    """``load`` in parts for ``processes``; Poisson processes add up to one of the sum's rate."""
    if load.rate:
        rate = load.rate / processes
        return [
            dataclasses.replace(load, rate=rate, seed=load.seed * processes + i)
            for i in range(processes)
        ]
    used = min(processes, load.clients)
    counts = [load.clients // used + (i < load.clients % used) for i in range(used)]
    return [dataclasses.replace(load, clients=count) for count in counts]


def merge(parts: Sequence[Outcome]) -> Outcome:
    """The outcome of loads that ran side by side."""
    errors: collections.Counter[str] = collections.Counter()
    for part in parts:
        errors.update(part.errors)
    return Outcome(
        sorted(latency for part in parts for latency in part.latencies),
        sum(part.throughput for part in parts),
        dict(errors),
        max(part.cpu for part in parts),
        (sum(part.waiting[0] for part in parts), sum(part.waiting[1] for part in parts)),
    )


def run(load: Load) -> Outcome:
    """Run ``load`` in this process."""
    picture = Path(load.picture).read_bytes()
    with contextlib.ExitStack() as stack:
        shared = stack.enter_context(channel(load.address)) if load.route == "grpc" else None

        def client() -> Ask:
            if shared is not None:
                return functools.partial(Grpc(shared, load.model), picture)
            rest = stack.enter_context(contextlib.closing(Rest(load.address, load.model)))
            return functools.partial(rest, picture)

        if load.rate:
            clients = [client() for _ in range(OPEN_CLIENTS)]
            found = open_loop(
                clients, rate=load.rate, seconds=load.seconds, warm=load.warm, seed=load.seed
            )
            return summary(found, open_throughput(found))
        clients = [client() for _ in range(load.clients)]
        found = closed(clients, seconds=load.seconds, warm=load.warm)
        return summary(found, closed_throughput(found, load.clients))


def closed_throughput(run: Run, clients: int) -> float:
    """Good answers per second by the interactive response-time law: clients / mean cycle.

    Answers come in batches, so a count over a short window is off by up to a batch; cycles are
    whole. A cycle that ended in an error takes its time and counts for nothing.
    """
    good = sum(not sample.error for sample in run.samples)
    return clients * good / sum(sample.seconds for sample in run.samples)


def open_throughput(run: Run) -> float:
    """Good answers per second, until the last of them was there."""
    good = [sample.done for sample in run.samples if not sample.error]
    return len(good) / (max([run.end, *good]) - run.begin)


def summary(run: Run, throughput: float) -> Outcome:
    middle = (run.begin + run.end) / 2
    errors = collections.Counter(sample.error for sample in run.samples if sample.error)
    return Outcome(
        sorted(round(1e3 * sample.seconds, 2) for sample in run.samples if not sample.error),
        throughput,
        dict(errors),
        run.cpu,
        (_waiting(run, run.begin, middle), _waiting(run, middle, run.end)),
    )


def _waiting(run: Run, begin: float, end: float) -> float:
    """The mean number of requests in the system from ``begin`` to ``end``."""
    overlaps = (min(sample.done, end) - max(sample.due, begin) for sample in run.samples)
    return sum(max(overlap, 0.0) for overlap in overlaps) / (end - begin)


def main() -> None:
    outcome = run(Load(**json.loads(sys.stdin.readline())))
    print(json.dumps(dataclasses.asdict(outcome)), flush=True)


if __name__ == "__main__":
    main()
