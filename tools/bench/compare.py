"""Every measurement of every network, with everything started once and in interleaved rounds."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from export.networks import registered
from serving.config import Config
from serving.management import Management
from serving.runfolder import RunFolder
from tools import bundle
from tools.bench import report
from tools.bench.bare import Measure, Work, bare
from tools.bench.common import RUN, TASKS, Result, Task
from tools.bench.load import OPEN_CLIENTS, Load, measure
from tools.bench.pictures import photographs
from tools.bench.report import Curves, Round
from tools.bench.stock import archive, stock

logger = logging.getLogger(__name__)

FOLDER = RUN / "bench"
CURVE_CLIENTS = (1, 4, 16, 32)
# Shares of the closed loop's rate. The sweep ends at the knee: a p95 of KNEE times a lone p50.
CURVE_RATES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
KNEE = 5.0
# A p95 takes so many requests: a slow network gets more time for them, up to OPEN_MAX_S.
OPEN_REQUESTS, OPEN_MAX_S = 40, 30.0
# What idle servers and the system may use of the CPU while the benchmark waits.
QUIET_SHARE, QUIET_S = 0.10, 2.0
BUSY = 0.8  # of a core, which is all that the process of the clients can use


@dataclass(frozen=True)
class Subject:
    """One network, everywhere it is measured."""

    model: str
    task: Task
    floor: Measure
    stock: str
    stock_one: str
    bundle: Config
    management: Management
    pictures: dict[str, Path]

    def warm_up(self) -> None:
        """TorchScript optimises on a worker's first batches of each size."""
        for url in (self.stock, self.stock_one, self.bundle.inference):
            self._load("warm-up", url, seconds=0.3 * self.task.seconds)

    def round(self) -> Round:
        """Loads send 1280x720 from the task's number of clients, unless their label differs."""
        many, rest = f"{self.task.clients} clients", self.bundle.inference
        return {
            "network": self._bare("network", *self.task.batches),
            "network_one": self._bare("network", 1),
            "decode": self._bare("decode", 1),
            "pipeline": self._bare("pipeline", *self.task.batches),
            "stock": self._load(f"stock, defaults, {many}", self.stock),
            "stock_one": self._load(f"stock, one worker, {many}", self.stock_one),
            "rest": replace(self._load(f"REST, {many}", rest), memory=self._worker_memory()),
            "grpc": self._load(f"gRPC, {many}", f"grpc://{self.bundle.grpc}"),
            "lone": self._load("REST, lone client", rest, clients=1),
            "large": self._load(f"REST, {many}, 12 MP", rest, "12 MP"),
            "small": self._load(f"REST, {many}, 320x240", rest, "320x240"),
        }

    def curves(self) -> Curves:
        """The bundle by clients of a closed loop, and by the rate of an open one to the knee."""
        load = partial(self._load, url=self.bundle.inference)
        closed: dict[float, Result] = {}
        opened: dict[float, Result] = {}
        for n in CURVE_CLIENTS:
            closed[n] = load(f"REST, {n} clients", clients=n)
        for share in CURVE_RATES:
            rate = share * max(result.rate for result in closed.values())
            seconds = min(max(self.task.seconds, OPEN_REQUESTS / rate), OPEN_MAX_S)
            how: dict[str, Any] = {"rate": rate, "seconds": seconds, "clients": OPEN_CLIENTS}
            opened[rate] = load(f"REST, {rate:.1f} requests/s", **how)
            if opened[rate].ms[1] > KNEE * closed[1].ms[0]:
                break
        return closed, opened

    def _bare(self, work: Work, *batches: int) -> Result:
        return self._log(self.floor(work, 0.4 * len(batches) * self.task.seconds, batches))

    def _load(self, label: str, url: str, picture: str = "1280x720", **changes: Any) -> Result:
        seconds, clients = self.task.seconds, self.task.clients
        how = {"seconds": seconds, "warm": 0.3 * seconds, "clients": clients, **changes}
        return self._log(measure(Load(label, url, self.model, self.pictures[picture], **how)))

    def _log(self, result: Result) -> Result:
        logger.info("%-10s%s", self.model, report.line([result]))
        return result

    def _worker_memory(self) -> float:
        """Resident bytes of a worker, its decode processes included."""
        workers = [psutil.Process(worker.pid) for worker in self.management.workers(self.model)]
        family = [p for worker in workers for p in (worker, *worker.children(recursive=True))]
        return sum(member.memory_info().rss for member in family) / len(workers)


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, and write run/bench.json and run/bench.png."""
    tasks, notes, curves = (
        {name: network.task for name, network in registered().items()},
        list[str](),
        dict[str, Curves](),
    )
    rounds: dict[str, list[Round]] = {model: [] for model in tasks}
    with contextlib.ExitStack() as stack:
        subjects, start_s = start(stack, tasks, arguments.device, arguments.quick)
        for subject in subjects:
            subject.warm_up()
        for _ in range(1 if arguments.quick else 3):
            busy = psutil.cpu_percent(QUIET_S) / 100
            if busy > QUIET_SHARE:
                notes.append(f"note: other processes used {busy:.0%} of the CPU: measure again")
            for subject in subjects:
                rounds[subject.model].append(subject.round())
        if not arguments.quick:
            curves = {subject.model: subject.curves() for subject in subjects}
        served = {subject.model: subject.management.describe(subject.model) for subject in subjects}
    for model, result in ((m, r) for m in tasks for each in rounds[m] for r in each.values()):
        if result.cpu > BUSY:
            notes.append(f"note: {model}, {result.label}: the clients may be the limit")
    title = report.machine(arguments.device)
    lines = [title]
    lines += [f"{m} in {s['precision']}: {s['precision_reason']}" for m, s in served.items()]
    lines += [f"\n{report.table(model, each)}" for model, each in rounds.items()]
    lines += [f"\n{report.ratios(model, each)}" for model, each in rounds.items()]
    lines += [
        f"\n{'goal':<56} {'measured':>9} {'bar':>10}",
    ]
    lines += [line for model in tasks for line in report.goals(model, tasks[model], rounds[model])]
    lines += [report.goal("start to true answers of both models", start_s, "<=", 20.0, "s"), *notes]
    print(*lines, sep="\n")
    facts = {"rounds": rounds, "curves": curves, "report": lines}
    (RUN / "bench.json").write_text(json.dumps(facts, indent=1, default=vars) + "\n")
    if curves:
        report.draw(title, rounds, curves, RUN / "bench.png")


def start(
    stack: contextlib.ExitStack, tasks: dict[str, str], device: str, quick: bool
) -> tuple[list[Subject], float]:
    """Everything that is compared, and the seconds that the bundle took to start."""
    store, plain, run_folder = (
        FOLDER / "model_store",
        FOLDER / "stock",
        RunFolder(FOLDER / "server"),
    )
    bundle.export(store)
    archive(plain, tasks)
    pictures = photographs(FOLDER)
    logger.info("starting the bundle, stock TorchServe twice, and the bare networks")
    started = time.monotonic()
    config = stack.enter_context(bundle.started(store, run_folder.path, device))
    start_s = time.monotonic() - started
    gpu = {} if device == "gpu" else {"number_of_gpu": "0"}
    first, second = (
        stack.enter_context(stock(plain, tasks, pictures["320x240"], {**gpu, **more}))
        for more in ({}, {"default_workers_per_model": "1"})
    )
    shared = first, second, config, Management(config, run_folder), pictures
    subjects = []
    for model, task in tasks.items():
        settings = replace(TASKS[task], seconds=TASKS[task].seconds / (2 if quick else 1))
        floor = bare(store / f"{model}.pt", device, pictures["1280x720"])
        subjects.append(Subject(model, settings, stack.enter_context(floor), *shared))
    return subjects, start_s
