"""Measurements -> goals, tables and a picture.

Ratios are taken within a round, in which the machine is as slow for both sides; medians count.
"""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import psutil
import torch
from matplotlib.figure import Figure

from tools.bench.common import Result, Speeds, Task

# Results by name, in the order of the table.
Round = Mapping[str, Result]
# The bundle by clients of a closed loop, and by the rate (1/s) of an open one.
Curves = tuple[dict[float, Result], dict[float, Result]]

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile")
# Variables that keep PyTorch and oneDNN from using instructions that the CPU has.
HIDING = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")

# Other servers, and how the tables name them.
RIVALS = {
    "litserve": "LitServe, tuned by hand",
    "stock_one": "stock, one worker",
    "stock": "stock, defaults",
}

# Goals for the rate of one measurement over that of another, with the tasks that have them.
RATES = [
    ("classify translate", ", {many}: of the bare pipeline", "rest", "pipeline", ">=", 0.9),
    ("classify", ", {many}: times stock, defaults", "rest", "stock", ">=", 2.4),
    ("translate", ", {many}: times a plain float32 handler", "rest", "stock", ">=", 1.9),
    ("classify", ": bare pipeline over the bare network", "network", "pipeline", "<=", 1.1),
    ("classify", ": 12 MP throughput over 1280x720", "large", "rest", ">=", 0.6),
    ("classify translate", ": gRPC throughput over REST", "grpc", "rest", ">=", 1.0),
]


# Goals of the engines: tasks, text, precision and kind (see ``engines.served``), sign, bar. In
# float32 and bfloat16 the first is OpenVINO and the second TorchScript; in int8 the second is
# OpenVINO in bfloat16. Lone clients are compared by p50, many by throughput.
ENGINES = [
    ("classify", ", lone client: bfloat16 p50 over TorchScript's", "bfloat16", "lone", "<=", 0.8),
    ("classify", ", {many}: bfloat16 times TorchScript", "bfloat16", "many", ">=", 1.1),
    ("classify", ", lone client: float32 p50 over TorchScript's", "float32", "lone", "<=", 0.75),
    ("translate", ", lone client: bfloat16 p50 over TorchScript's", "bfloat16", "lone", "<=", 1.03),
    ("translate", ", lone client: float32 p50 over TorchScript's", "float32", "lone", "<=", 1.03),
    ("classify", ", {many}: int8 times bfloat16", "int8", "many", ">=", 1.8),
]


def goals(model: str, task: Task, rounds: Sequence[Round]) -> list[str]:
    """The goals of a network of ``task``, a line each."""
    many = f"{task.clients} clients"
    lines = [
        goal(model + text.format(many=many), _ratio(rounds, of, over), sign, bar)
        for tasks, text, of, over, sign, bar in RATES
        if task.name in tasks
    ]
    if task.name == "classify":
        extra = median(r["lone"].ms[0] - r["network_one"].ms[0] - r["decode"].ms[0] for r in rounds)
        text = f"{model}, lone client: p50 over network and decode"
        tail = median(r["rest"].ms[2] / r["rest"].ms[0] for r in rounds)
        lines.append(goal(text, extra, "<=", 8.0, "ms"))
        lines.append(goal(f"{model}, {many}: p99 over p50", tail, "<=", 2.0))
    memory = median(r["rest"].memory / r["network"].memory for r in rounds)
    return [*lines, goal(f"{model}: worker memory over the bare process", memory, "<=", 1.3)]


def engine_goals(model: str, task: Task, rounds: Sequence[Round]) -> list[str]:
    """The goals of the engines, a line each; ``rounds`` are of the bundle by engine."""
    return [
        goal(
            model + text.format(many=f"{task.clients} clients"),
            _engine_ratio(rounds, precision, kind),
            sign,
            bar,
        )
        for tasks, text, precision, kind, sign, bar in ENGINES
        if task.name in tasks
    ]


def _engine_ratio(rounds: Sequence[Round], precision: str, kind: str) -> float | None:
    """First over second: the p50 of lone clients, the throughput of many; None if not measured."""
    names = f"{precision} first {kind}", f"{precision} second {kind}"
    pairs = [[r[name] for name in names] for r in rounds if all(name in r for name in names)]
    if not pairs:
        return None
    if kind == "lone":
        return median(first.ms[0] / second.ms[0] for first, second in pairs)
    return median(first.rate / second.rate for first, second in pairs)


def goal(text: str, measured: float | None, sign: str, bar: float, unit: str = "") -> str:
    """A line that says whether ``measured`` is ``sign`` (<= or >=) ``bar``; None: not measured."""
    bar_text = f"{sign} {bar:.2f}"
    if measured is None:
        return f"{text:<56} {'-':>9} {bar_text:>10} {unit:<2}  not measured"
    verdict = "met" if (measured <= bar if sign == "<=" else measured >= bar) else "NOT met"
    return f"{text:<56} {measured:>9.2f} {bar_text:>10} {unit:<2}  {verdict}"


def table(model: str, rounds: Sequence[Round]) -> str:
    """Every measurement of ``model``: medians over the rounds, in pictures/s and ms."""
    lines = [f"{model:<38} {'pictures/s':>10} {'p50':>8} {'p95':>8} {'p99':>8}  ms"]
    lines += [line([r[name] for r in rounds]) for name in rounds[0]]
    worker, bare = (median(r[n].memory for r in rounds) / 2**20 for n in ("rest", "network"))
    return "\n".join([*lines, f"  memory: worker {worker:.0f} MiB, bare process {bare:.0f} MiB"])


def line(results: Sequence[Result]) -> str:
    """One measurement, as medians."""
    ms = " ".join(f"{median(p):>8.1f}" for p in zip(*(r.ms for r in results), strict=True))
    return f"  {results[0].label:<36} {median(r.rate for r in results):>10.2f} {ms}"


def headline(model: str, rounds: Sequence[Round]) -> str:
    """The throughput of the bundle, and over each rival's, the strongest first."""
    rate = median(r["rest"].rate for r in rounds)
    over = sorted((_ratio(rounds, "rest", name), name) for name in RIVALS if name in rounds[0])
    parts = [f"{ratio:.2f} times {RIVALS[name]}" for ratio, name in over]
    return f"{model}, {rounds[0]['rest'].label}: {rate:.2f} pictures/s, {'; '.join(parts)}"


def ratios(model: str, rounds: Sequence[Round]) -> str:
    """The throughput of the bundle as a share of the bare network and pipeline."""
    lines = [f"{model}, {rounds[0]['rest'].label}"]
    for name in ("network", "pipeline"):
        lines.append(f"  {_ratio(rounds, 'rest', name):>6.2f} of the {rounds[0][name].label}")
    return "\n".join(lines)


def peaks(best: Mapping[str, float]) -> str:
    """The fastest matrix multiplications, by precision."""
    figures = ", ".join(f"{precision} {gflops:.0f}" for precision, gflops in best.items())
    return f"peak of matrix multiplication, GFLOPS: {figures}"


def speeds(model: str, work: float, each: Speeds, best: Mapping[str, float]) -> str:
    """The bare network by engine and precision: ms a picture, and the share of the peak.

    ``work`` is in GFLOP a picture. A batch of one is beside the fastest.
    """
    head = f"{'batch':>7} {'ms':>7} {'of peak':>8}"
    lines = [f"\n{f'{model}, {work:.1f} GFLOP a picture':<38} {head} {head}"]
    for (engine, precision), by_batch in sorted(each.items()):
        chosen = (1, min(by_batch, key=by_batch.__getitem__))
        peak = best.get(precision, math.nan)
        cells = [
            f"{batch:>7} {1e3 * by_batch[batch]:>7.1f} {work / by_batch[batch] / peak:>8.2f}"
            for batch in chosen
        ]
        lines.append(f"  bare {f'{engine}, {precision}':<30} {' '.join(cells)}")
    return "\n".join(lines)


def served(model: str, rounds: Sequence[Round]) -> str:
    """The bundle by engine and precision: medians over the rounds."""
    lines = [f"\n{f'{model}, served':<38} {'pictures/s':>10} {'p50':>8} {'p95':>8} {'p99':>8}  ms"]
    return "\n".join([*lines, *(line([r[name] for r in rounds]) for name in rounds[0])])


def _ratio(rounds: Sequence[Round], of: str, over: str) -> float:
    return median(r[of].rate / r[over].rate for r in rounds)


def draw(
    title: str, rounds: Mapping[str, Sequence[Round]], curves: Mapping[str, Curves], path: Path
) -> None:
    """A row a network: throughput and latency by clients, and latency by rate, as a PNG."""
    figure = Figure(figsize=(15, 4.2 * len(rounds)), layout="constrained")
    figure.suptitle(title)
    for row, (model, (closed, opened)) in enumerate(curves.items()):
        axes = [figure.add_subplot(len(curves), 3, 3 * row + column) for column in (1, 2, 3)]
        axes[0].plot([*closed], [result.rate for result in closed.values()], "o-", label="REST")
        for i, name in enumerate(("network", "pipeline", *RIVALS), start=1):
            if (result := rounds[model][-1].get(name)) is None:
                continue
            axes[0].axhline(result.rate, color=f"C{i}", linestyle="--", label=result.label)
        for panel, curve in zip(axes[1:], (closed, opened), strict=True):
            latencies = [result.ms for result in curve.values()]
            panel.plot([*curve], latencies, "o-", label=("p50", "p95", "p99"))
            panel.set(title=f"{model}: latency", ylabel="ms", yscale="log")
        axes[0].set(title=f"{model}: throughput", ylabel="pictures/s")
        for panel, load in zip(axes, ("clients", "clients", "requests/s, open loop"), strict=True):
            panel.set(xlabel=load, xlim=(0, None))
            panel.grid(alpha=0.3)
            panel.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def machine(device: str) -> str:
    """CPU, memory, GPU if ``device`` is gpu, PyTorch's version and the time, in a line."""
    lines = (row.partition(":") for row in Path("/proc/cpuinfo").read_text().splitlines())
    info = {name.strip(): value.strip() for name, _, value in lines}
    notes = [flag for flag in FLAGS if flag in info.get("flags", "").split()]
    hidden = [f"{name}={os.environ[name]}" for name in HIDING if name in os.environ]
    if hidden:
        notes.append(f"newer instructions hidden by {' '.join(hidden)}")
    cpu = f"{info.get('model name', platform.machine())} ({', '.join(notes)})"
    memory = psutil.virtual_memory().total / 2**30
    gpu = torch.cuda.get_device_name() if device == "gpu" else "none used"
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = f"{cpu}, {os.cpu_count()} cores, {memory:.1f} GiB, GPU: {gpu}"
    return f"{line}, PyTorch {torch.__version__}, {date}"
