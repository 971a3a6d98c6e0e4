"""Every measurement of every network, with everything started once and in interleaved rounds."""

from __future__ import annotations

import contextlib
import json
import logging
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
from tools.bench.common import FOLDER, RUN, STORE, TASKS, Result, Task
from tools.bench.load import OPEN_CLIENTS, Load, measure
from tools.bench.pictures import photographs
from tools.bench.report import Curves, Round
from tools.bench.stock import archive, stock

# Shares of the closed loop's rate. The sweep ends at the knee: a p95 of KNEE times a lone p50.
CURVE_RATES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
KNEE = 5.0
# A p95 needs at least this many requests; a slow network gets more time, up to OPEN_MAX_S.
OPEN_REQUESTS, OPEN_MAX_S = 40, 30.0
# The share of the CPU that idle servers and the system may use, and the seconds to measure it.
QUIET_SHARE, QUIET_S = 0.10, 2.0


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
        closed = {float(n): load(f"REST, {n} clients", clients=n) for n in self.task.curve}
        opened: dict[float, Result] = {}
        for share in CURVE_RATES:
            rate = share * max(result.rate for result in closed.values())
            seconds = min(max(self.task.seconds, OPEN_REQUESTS / rate), OPEN_MAX_S)
            label = f"REST, {rate:.1f} requests/s"
            opened[rate] = load(label, rate=rate, seconds=seconds, clients=OPEN_CLIENTS)
            if opened[rate].ms[1] > KNEE * closed[1].ms[0]:
                break
        return closed, opened

    def _bare(self, work: Work, *batches: int) -> Result:
        return self._log(self.floor(work, 0.4 * len(batches) * self.task.seconds, batches))

    def _load(self, label: str, url: str, picture: str = "1280x720", **changes: Any) -> Result:
        seconds, clients = self.task.seconds, self.task.clients
        how = {"seconds": seconds, "clients": clients, **changes}
        return self._log(measure(Load(label, url, self.model, self.pictures[picture], **how)))

    def _log(self, result: Result) -> Result:
        logging.info("%-10s%s", self.model, report.line([result]))
        return result

    def _worker_memory(self) -> float:
        """Resident bytes of a worker, its decode processes included."""
        workers = [psutil.Process(worker.pid) for worker in self.management.workers(self.model)]
        family = [p for worker in workers for p in (worker, *worker.children(recursive=True))]
        return sum(member.memory_info().rss for member in family) / len(workers)


def run(_config: Config, device: str, quick: bool) -> int:
    """Measure, print, and write run/bench.json and run/bench.png."""
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        subjects, start_s = start(stack, device, quick)
        for subject in subjects:
            subject.warm_up()
        rounds: dict[str, list[Round]] = {subject.model: [] for subject in subjects}
        for _ in range(1 if quick else 3):
            busy = psutil.cpu_percent(QUIET_S) / 100
            if busy > QUIET_SHARE:
                notes.append(f"note: other processes used {busy:.0%} of the CPU: measure again")
            for subject in subjects:
                rounds[subject.model].append(subject.round())
        curves = {} if quick else {s.model: s.curves() for s in subjects}
        served = {s.model: s.management.describe(s.model) for s in subjects}
    lines = [report.machine(device)]
    lines += [f"{m} in {s['precision']}: {s['precision_reason']}" for m, s in served.items()]
    lines += [f"\n{report.table(model, each)}" for model, each in rounds.items()]
    lines += [f"\n{report.ratios(model, each)}" for model, each in rounds.items()]
    lines += [f"\n{'goal':<56} {'measured':>9} {'bar':>10}"]
    lines += [goal for s in subjects for goal in report.goals(s.model, s.task, rounds[s.model])]
    lines += [report.goal("start to true answers of both models", start_s, "<=", 20.0, "s"), *notes]
    print(*lines, sep="\n")
    facts = {"report": lines, "rounds": rounds, "curves": curves}
    (RUN / "bench.json").write_text(json.dumps(facts, indent=1, default=vars) + "\n")
    if curves:
        report.draw(lines[0], rounds, curves, RUN / "bench.png")
    return 0


def start(stack: contextlib.ExitStack, device: str, quick: bool) -> tuple[list[Subject], float]:
    """Everything that is compared, and the seconds that the bundle took to start."""
    networks = [network for network in registered().values() if network.task in TASKS]
    bundle.export(STORE)
    archive(FOLDER / "stock", networks)
    pictures, run_folder = photographs(FOLDER), RunFolder(FOLDER / "server")
    logging.info("starting the bundle, stock TorchServe twice, and the bare networks")
    config, start_s = stack.enter_context(bundle.started(STORE, run_folder.path, device))
    gpu, one = {} if device == "gpu" else {"number_of_gpu": "0"}, {"default_workers_per_model": "1"}
    first, second = (
        stack.enter_context(stock(FOLDER / "stock", pictures["320x240"], FOLDER / log, properties))
        for log, properties in (("stock.log", gpu), ("stock-one.log", gpu | one))
    )
    shared = first, second, config, Management.of(run_folder), pictures
    subjects = []
    for network in networks:
        task = TASKS[network.task]
        task = replace(task, seconds=task.seconds / (2 if quick else 1))
        floor = bare(STORE / f"{network.name}.pt", device, pictures["1280x720"])
        subjects.append(Subject(network.name, task, stack.enter_context(floor), *shared))
    return subjects, start_s
