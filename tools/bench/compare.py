"""Every measurement of every network: the bundle, its rivals and the bare networks.

Whatever is compared runs at once, in interleaved rounds.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from export.networks import Network, registered
from serving.config import Config
from serving.management import Management
from serving.runfolder import RunFolder
from tools import bundle
from tools.bench import engines, lit, report
from tools.bench.bare import Measure, Work, bare
from tools.bench.common import FOLDER, RUN, TASKS, Result, Task
from tools.bench.load import OPEN_CLIENTS, Load, measure
from tools.bench.peak import native, peaks
from tools.bench.pictures import photographs
from tools.bench.report import Curves, Round
from tools.bench.stock import archive, stock

# Of a task's seconds.
SCALE, QUICK_SCALE = 0.4, 0.2
# Shares of the closed loop's rate. The sweep ends at the knee: a p95 of KNEE times a lone p50.
CURVE_RATES = (0.5, 0.7, 0.9, 1.0)
KNEE = 5.0
# A p95 needs at least this many requests; a slow network gets more time, up to OPEN_MAX_S.
OPEN_REQUESTS, OPEN_MAX_S = 30, 20.0
# The share of the CPU that idle servers and the system may use, and the seconds to measure it.
QUIET_SHARE, QUIET_S = 0.10, 2.0


@dataclass(frozen=True)
class Subject:
    """One network, everywhere it is measured. ``rivals`` are the URLs of other servers."""

    model: str
    task: Task
    floor: Measure
    rivals: Mapping[str, str]
    bundle: Config
    management: Management
    pictures: Mapping[str, Path]

    def warm_up(self) -> None:
        """TorchScript optimises on a worker's first batches of each size."""
        for url in (*self.rivals.values(), self.bundle.inference):
            self._load("warm-up", url, seconds=0.5 * self.task.seconds)

    def round(self) -> Round:
        """Loads send 1280x720 from the task's number of clients, unless their label differs."""
        many, rest = f"{self.task.clients} clients", self.bundle.inference
        return {
            "network": self._bare("network", *self.task.batches),
            "network_one": self._bare("network", 1),
            "decode": self._bare("decode", 1),
            "pipeline": self._bare("pipeline", *self.task.batches),
            **{
                name: self._load(f"{report.RIVALS[name]}, {many}", url)
                for name, url in self.rivals.items()
            },
            "rest": replace(self._load(f"REST, {many}", rest), memory=self._worker_memory()),
            "grpc": self._load(f"gRPC, {many}", f"grpc://{self.bundle.grpc}"),
            "lone": self._load("REST, lone client", rest, clients=1),
            "large": self._load(f"REST, {many}, 12 MP", rest, "12 MP"),
        }

    def curves(self, last: Round) -> Curves:
        """The bundle by clients of a closed loop, and by the rate of an open one to the knee.

        Points that the round ``last`` has are taken from it.
        """
        load = partial(self._load, url=self.bundle.inference)
        known = {1: last["lone"], self.task.clients: last["rest"]}
        closed = {
            float(n): known.get(n) or load(f"REST, {n} clients", clients=n) for n in self.task.curve
        }
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


def run(_config: Config, device: str, quick: bool, store: Path) -> int:
    """Measure, print, and write run/bench.json and run/bench.png."""
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        subjects, start_s = start(stack, store, device, quick)
        for subject in subjects:
            subject.warm_up()
        rounds: dict[str, list[Round]] = {subject.model: [] for subject in subjects}
        for _ in range(1 if quick else 3):
            busy = psutil.cpu_percent(QUIET_S) / 100
            if busy > QUIET_SHARE:
                notes.append(f"note: other processes used {busy:.0%} of the CPU: measure again")
            for subject in subjects:
                rounds[subject.model].append(subject.round())
        curves = {} if quick else {s.model: s.curves(rounds[s.model][-1]) for s in subjects}
        described = {s.model: s.management.describe(s.model) for s in subjects}
    tasks = {subject.model: subject.task for subject in subjects}
    picture = subjects[0].pictures["1280x720"]
    best = peaks(device, 2.0)
    bare_engines = engines.bare(store, tasks, device, picture)
    float32 = not quick and native(device) != "float32"
    served = engines.served(store, tasks, device, picture, 1 if quick else 3, float32=float32)
    lines = [report.machine(device)]
    lines += [report.headline(model, each) for model, each in rounds.items()]
    for key in ("precision", "engine"):
        lines += [f"{m}, {key} {s[key]}: {s[f'{key}_reason']}" for m, s in described.items()]
    lines += [f"\n{report.table(model, each)}" for model, each in rounds.items()]
    lines += [f"\n{report.peaks(best)}"]
    lines += [report.speeds(m, gflop, speeds, best) for m, (gflop, speeds) in bare_engines.items()]
    lines += [report.served(model, each) for model, each in served.items() if each]
    lines += [f"\n{report.ratios(model, each)}" for model, each in rounds.items()]
    lines += [f"\n{'goal':<56} {'measured':>9} {'bar':>10}"]
    for model, task in tasks.items():
        lines += report.goals(model, task, rounds[model])
        lines += report.engine_goals(model, task, served[model])
    lines += [report.goal("start to true answers of both models", start_s, "<=", 20.0, "s"), *notes]
    print(*lines, sep="\n")
    facts = {"report": lines, "rounds": rounds, "served": served, "curves": curves}
    (RUN / "bench.json").write_text(json.dumps(facts, indent=1, default=vars) + "\n")
    if curves:
        report.draw(lines[0], rounds, curves, RUN / "bench.png")
    return 0


def networks(store: Path) -> list[Network]:
    """The networks of ours that ``store`` has, classifiers first."""
    known = (network for network in registered().values() if network.task in TASKS)
    found = [network for network in known if (store / f"{network.name}.mar").exists()]
    return sorted(found, key=lambda network: network.task)


def start(
    stack: contextlib.ExitStack, store: Path, device: str, quick: bool
) -> tuple[list[Subject], float]:
    """Everything that is compared, and the seconds that the bundle took to start."""
    found = networks(store)
    scale = QUICK_SCALE if quick else SCALE
    tasks = {name: replace(each, seconds=scale * each.seconds) for name, each in TASKS.items()}
    traces, pictures, run_folder = (
        FOLDER / "stock",
        photographs(FOLDER),
        RunFolder(FOLDER / "server"),
    )
    archive(traces, found)
    rivals: dict[str, dict[str, str]] = {network.name: {} for network in found}
    for network in found:
        if network.task == "classify":
            logging.info("starting LitServe")
            server = lit.Server(traces / f"{network.name}.pt", native(device), device)
            picture = pictures["1280x720"]
            tuning = lit.TUNINGS[0] if quick else server.best(picture, tasks["classify"])
            rivals[network.name]["litserve"] = stack.enter_context(server.started(tuning, picture))
    logging.info("starting stock TorchServe twice")
    gpu, one = {} if device == "gpu" else {"number_of_gpu": "0"}, {"default_workers_per_model": "1"}
    for name, properties in (("stock_one", gpu | one), ("stock", gpu)):
        own = stock(traces, pictures["320x240"], FOLDER / f"{name}.log", properties)
        url = stack.enter_context(own)
        for each in rivals.values():
            each[name] = url
    logging.info("starting the bundle and the bare networks")
    config, start_s = stack.enter_context(bundle.started(store, run_folder.path, device))
    shared = config, Management.of(run_folder), pictures
    subjects = []
    for network in found:
        task, pt = tasks[network.task], store / f"{network.name}.pt"
        floor = bare(pt, device, pictures["1280x720"], max(task.batches))
        own_floor, others = stack.enter_context(floor), rivals[network.name]
        subjects.append(Subject(network.name, task, own_floor, others, *shared))
    return subjects, start_s
