"""Measurements -> the tables on the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.bare import Time
from benchmarks.goals import CLIENTS, Goal, Round
from benchmarks.load import PERCENTILES, Outcome, percentile


def goal_table(goals: Sequence[Goal]) -> str:
    """One line a goal: what it is, measured, the bar, met or not."""
    lines = [f"{'goal':<56} {'measured':>9} {'bar':>10}"]
    for goal in goals:
        sign = "<=" if goal.at_most else ">="
        bar = f"{sign} {goal.bar:.2f}"
        verdict = "met" if goal.met else "NOT met"
        lines.append(f"{goal.text:<56} {goal.measured:>9.2f} {bar:>10} {goal.unit:<2}  {verdict}")
    return "\n".join(lines)


def figure_table(model: str, rounds: Sequence[Round]) -> str:
    """What was measured of ``model``, as medians over its rounds: pictures/s and ms."""
    many = CLIENTS[model]
    head = f"{model:<38} {'pictures/s':>10} {'p50':>8} {'p95':>8} {'p99':>8}  ms"
    bare: list[tuple[str, Callable[[Round], Time]]] = [
        ("bare network", lambda r: r.network),
        ("bare network", lambda r: r.network_one),
        ("bare decode, one core", lambda r: r.decode),
        ("bare pipeline", lambda r: r.pipeline),
    ]
    served: list[tuple[str, Callable[[Round], Outcome]]] = [
        (f"stock, defaults, {many} clients", lambda r: r.stock),
        (f"stock, one worker, {many} clients", lambda r: r.stock_one),
        (f"REST, {many} clients", lambda r: r.rest),
        (f"gRPC, {many} clients", lambda r: r.grpc),
        ("REST, lone client", lambda r: r.lone),
        (f"REST, {many} clients, 12 MP", lambda r: r.large),
        (f"REST, {many} clients, 320x240", lambda r: r.small),
    ]
    worker = _median([r.worker_rss for r in rounds])
    process = _median([r.network.rss for r in rounds])
    return "\n".join(
        [
            head,
            *(_bare_line(name, [of(r) for r in rounds]) for name, of in bare),
            *(_served_line(name, [of(r) for r in rounds]) for name, of in served),
            f"  memory: worker {worker / 2**20:.0f} MiB, bare process {process / 2**20:.0f} MiB",
        ]
    )


def ratio_table(model: str, rounds: Sequence[Round]) -> str:
    """The bundle's throughput, and how it compares: each ratio within a round, then the median."""
    rate = _median([r.rest.throughput for r in rounds])
    network, pipeline = rounds[0].network.batch, rounds[0].pipeline.batch
    ratios: list[tuple[str, Callable[[Round], float]]] = [
        (f"of the bare network, batch {network}", lambda r: r.network.rate),
        (f"of the bare pipeline, batch {pipeline}", lambda r: r.pipeline.rate),
        ("times stock, defaults", lambda r: r.stock.throughput),
        ("times stock, one worker", lambda r: r.stock_one.throughput),
    ]
    return "\n".join(
        [
            f"{model}, REST, {CLIENTS[model]} clients: {rate:.2f} pictures/s",
            *(
                f"  {_median([r.rest.throughput / of(r) for r in rounds]):>6.2f} {text}"
                for text, of in ratios
            ),
        ]
    )


def _bare_line(name: str, times: Sequence[Time]) -> str:
    ms = _median([time.ms for time in times])
    return f"  {name + f', batch {times[0].batch}':<36} {1e3 / ms:>10.2f} {ms:>8.1f}"


def _served_line(name: str, outcomes: Sequence[Outcome]) -> str:
    figures = (
        _median([percentile(outcome.latencies, share) for outcome in outcomes])
        for share in PERCENTILES.values()
    )
    throughput = _median([outcome.throughput for outcome in outcomes])
    return f"  {name:<36} {throughput:>10.2f} " + " ".join(f"{ms:>8.1f}" for ms in figures)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
