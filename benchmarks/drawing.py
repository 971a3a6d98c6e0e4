"""The picture of a bench: throughput and latency against load, limits and stock drawn in."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from benchmarks.goals import CLIENTS, Round
from benchmarks.load import PERCENTILES, Outcome, percentile


@dataclass
class Curves:
    """The bundle's outcomes by clients of a closed loop, and by rate (1/s) of an open one."""

    closed: dict[int, Outcome] = field(default_factory=dict)
    open: dict[float, Outcome] = field(default_factory=dict)


def draw(
    rounds: Mapping[str, Sequence[Round]], curves: Mapping[str, Curves], title: str, path: Path
) -> None:
    """One row a model, as a PNG: throughput and latency by clients and, where swept, by rate."""
    columns = 3 if any(found.open for found in curves.values()) else 2
    figure = Figure(figsize=(5 * columns, 4.2 * len(rounds)), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(rounds), columns, squeeze=False)
    for row, (model, found) in zip(grid, rounds.items(), strict=True):
        _throughput(row[0], model, found, curves[model])
        _closed_latency(row[1], model, found, curves[model])
        if columns == 3:
            _open_latency(row[2], model, found, curves[model])
    figure.savefig(path, dpi=110)


def _throughput(axes: Axes, model: str, rounds: Sequence[Round], curves: Curves) -> None:
    many = CLIENTS[model]
    clients = sorted(curves.closed)
    axes.plot(clients, [curves.closed[n].throughput for n in clients], "o-", label="bundle, REST")
    points: list[tuple[str, str, Callable[[Round], float]]] = [
        ("s", "bundle, gRPC", lambda r: r.grpc.throughput),
        ("^", "bundle, 12 MP", lambda r: r.large.throughput),
        ("v", "bundle, 320x240", lambda r: r.small.throughput),
        ("X", "stock, defaults", lambda r: r.stock.throughput),
        ("P", "stock, one worker", lambda r: r.stock_one.throughput),
    ]
    for marker, label, of in points:
        axes.plot([many], [_median(rounds, of)], marker, label=label)
    axes.set_xticks(clients)
    network = _median(rounds, lambda r: r.network.rate)
    pipeline = _median(rounds, lambda r: r.pipeline.rate)
    axes.axhline(network, color="black", linestyle=":", label="limit: bare network")
    axes.axhline(pipeline, color="black", linestyle="--", label="limit: bare pipeline")
    _finish(axes, f"{model}: throughput", "clients (closed loop)", "pictures/s")


def _closed_latency(axes: Axes, model: str, rounds: Sequence[Round], curves: Curves) -> None:
    many = CLIENTS[model]
    clients = sorted(curves.closed)
    for label, share in PERCENTILES.items():
        latencies = [percentile(curves.closed[n].latencies, share) for n in clients]
        (line,) = axes.plot(clients, latencies, "o-", label=f"bundle, {label}")
        stock = statistics.median(percentile(r.stock_one.latencies, share) for r in rounds)
        label = f"stock, one worker, {label}"
        axes.plot([many], [stock], "P", color=line.get_color(), label=label)
    # Nobody is answered sooner than alone, nor sooner than the pipeline works off all who wait.
    alone = _median(rounds, lambda r: r.network_one.ms + r.decode.ms)
    pipeline = _median(rounds, lambda r: r.pipeline.ms)
    limit = [max(alone, n * pipeline) for n in clients]
    axes.plot(clients, limit, color="black", linestyle="--", label="limit: bare pipeline")
    axes.set_xticks(clients)
    _logarithmic(axes)
    _finish(axes, f"{model}: latency", "clients (closed loop)", "ms")


def _open_latency(axes: Axes, model: str, rounds: Sequence[Round], curves: Curves) -> None:
    rates = sorted(curves.open)
    for label, share in PERCENTILES.items():
        latencies = [percentile(curves.open[rate].latencies, share) for rate in rates]
        axes.plot(rates, latencies, "o-", label=label)
    pipeline = _median(rounds, lambda r: r.pipeline.rate)
    axes.axvline(pipeline, color="black", linestyle="--", label="limit: bare pipeline")
    stock = _median(rounds, lambda r: r.stock_one.throughput)
    axes.axvline(stock, color="gray", linestyle="-.", label="stock, one worker: throughput")
    _logarithmic(axes)
    _finish(axes, f"{model}: latency from due time", "requests/s (open loop)", "ms")


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())  # 100, not 10 to the 2
    axes.yaxis.set_minor_formatter(LogFormatter())


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.set_xlim(left=0)
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _median(rounds: Sequence[Round], value: Callable[[Round], float]) -> float:
    return statistics.median(map(value, rounds))
