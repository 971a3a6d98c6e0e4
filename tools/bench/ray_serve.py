"""Ray Serve beside the bundle, on the same archives: throughput, latency, start, memory, idle CPU.

Each round starts both, and only one runs at a time: an idle server uses the CPU, too.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from serving.config import Config
from serving.errors import ServingError
from serving.runfolder import RunFolder
from tools import bundle
from tools.bench import ray_proxy, report, usage
from tools.bench.common import FOLDER, TASKS, Result, Task
from tools.bench.compare import QUICK_SCALE, SCALE, networks
from tools.bench.load import Load, measure
from tools.bench.pictures import photographs
from tools.bench.spawn import free_ports, ray_server

# Ray's throughput over bundle's, and the ms of its lone p50 above the bundle's.
THROUGHPUT, LONE_MS = 0.95, 10.0
# Seconds without requests.
IDLE_S = 5.0


@dataclass(frozen=True)
class Visit:
    """One start of one server: seconds until every model answered, and what it used.

    ``idle`` is the CPU time per second without requests, ``memory`` the bytes of all its processes,
    in which shared pages count once. ``lone`` and ``many`` are by model.
    """

    start_s: float
    idle: float
    memory: float
    lone: Mapping[str, Result]
    many: Mapping[str, Result]


# By server: the bundle or Ray.
Round = Mapping[str, Visit]


def run(_config: Config, device: str, quick: bool, store: Path) -> int:
    """Measure both servers and the proxy, and print."""
    scale, picture = QUICK_SCALE if quick else SCALE, photographs(FOLDER)["1280x720"]
    tasks = {
        network.name: replace(task, seconds=scale * task.seconds)
        for network in networks(store)
        for task in (TASKS[network.task],)
    }
    rounds = []
    for n in range(1 if quick else 3):
        order = [*SERVERS][:: -1 if n % 2 else 1]
        rounds.append({name: visit(name, store, device, tasks, picture) for name in order})
    print(report.machine(device), *tables(tasks, rounds), sep="\n")
    mar = store / f"{next(iter(tasks))}.mar"
    limits = {name: ray_proxy.limit(name, mar, 3 if quick else 10) for name in ray_proxy.PROXIES}
    print(*ray_proxy.lines(limits), sep="\n")
    return 0


def visit(name: str, store: Path, device: str, tasks: Mapping[str, Task], picture: Path) -> Visit:
    """Start the server ``name``, measure it, and end it."""
    logging.info("starting %s", name)
    with SERVERS[name](store, device) as (url, process, start_s):
        for model, task in tasks.items():
            measure(Load("warm-up", url, model, picture, task.seconds / 2, task.clients))
        idle = usage.idle(process, IDLE_S)
        lone, many = {}, {}
        for model, task in tasks.items():
            load = partial(Load, url=url, model=model, picture=picture, seconds=task.seconds)
            lone[model] = measure(load(f"{name}, lone client", clients=1))
            many[model] = measure(load(f"{name}, {task.clients} clients", clients=task.clients))
            for result in (lone[model], many[model]):
                logging.info("%-10s%s", model, report.line([result]))
        return Visit(start_s, idle, usage.memory(process), lone, many)


@contextlib.contextmanager
def _bundle(store: Path, device: str) -> Iterator[tuple[str, psutil.Process, float]]:
    run_folder = RunFolder(FOLDER / "beside-ray")
    with bundle.started(store, run_folder.path, device) as (config, start_s):
        process = run_folder.supervisor()
        if process is None:
            raise ServingError("the bundle has ended: see " + str(run_folder.serve_log))
        yield config.inference, process, start_s


@contextlib.contextmanager
def _ray(store: Path, device: str) -> Iterator[tuple[str, psutil.Process, float]]:
    url, (port, grpc_port, metrics_port) = free_ports()
    command = [sys.executable, "-m", "deploy.ray", "serve", f"--model-store={store.resolve()}"]
    command += [f"--port={port}", f"--grpc-port={grpc_port}", f"--metrics-port={metrics_port}"]
    command += [f"--device={device}"]
    begun = time.monotonic()
    with ray_server(command, FOLDER / "ray.log", url) as process:
        yield url, process, time.monotonic() - begun


SERVERS = {"bundle": _bundle, "Ray": _ray}


def tables(tasks: Mapping[str, Task], rounds: Sequence[Round]) -> list[str]:
    """Medians over the rounds, and the goals."""
    lines = []
    for model in tasks:
        lines.append(f"\n{model:<38} {'pictures/s':>10} {'p50':>8} {'p95':>8} {'p99':>8}  ms")
        for each in ("many", "lone"):
            for name in SERVERS:
                lines.append(report.line([getattr(r[name], each)[model] for r in rounds]))
    lines.append(f"\n{'':<20} {'start, s':>10} {'memory, MiB':>12} {'idle, % of a core':>18}")
    for name in SERVERS:
        start_s, memory, idle = (
            median(getattr(r[name], each) for r in rounds) for each in ("start_s", "memory", "idle")
        )
        lines.append(f"  {name:<18} {start_s:>10.1f} {memory / 2**20:>12.0f} {100 * idle:>18.1f}")
    lines.append(f"\n{'goal':<56} {'measured':>9} {'bar':>10}")
    for model, task in tasks.items():
        ratio = median(r["Ray"].many[model].rate / r["bundle"].many[model].rate for r in rounds)
        extra = median(r["Ray"].lone[model].ms[0] - r["bundle"].lone[model].ms[0] for r in rounds)
        many = f"{model}, {task.clients} clients: Ray's throughput over bundle's"
        lone = f"{model}, lone client: Ray's p50 above the bundle's"
        lines.append(report.goal(many, ratio, ">=", THROUGHPUT))
        lines.append(report.goal(lone, extra, "<=", LONE_MS, "ms"))
    return lines
