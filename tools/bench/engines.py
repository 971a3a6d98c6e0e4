"""The engines beside each other: the bare network by engine and precision, and served in pairs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from export.networks import registered
from handlers.network.artefact import read
from serving.management import Management
from serving.runfolder import RunFolder
from tools import bundle
from tools.bench import report
from tools.bench.bare import engines
from tools.bench.common import FOLDER, Result, Speeds, Task
from tools.bench.load import Load, measure
from tools.bench.peak import gflop, native
from tools.bench.report import Round


class Side(NamedTuple):
    """The options of a server; None means the archives' own precision."""

    engine: str
    precision: str | None


# Each of the first is compared with the second, which runs beside it. Results are named by the
# precision of the first.
ENGINES = Side("auto", None), Side("torchscript", None)
FLOAT32 = Side("auto", "float32"), Side("torchscript", "float32")
INT8 = Side("auto", "int8"), Side("auto", None)


def bare(
    store: Path, tasks: Mapping[str, Task], device: str, picture: Path
) -> dict[str, tuple[float, Speeds]]:
    """By model: GFLOP a picture, and the speeds of the bare network."""
    results = {}
    for model, task in tasks.items():
        pt = store / f"{model}.pt"
        logging.info("%-10sthe bare network by engine and precision", model)
        seconds = 4 * task.seconds
        size, speeds = engines(pt, device, picture, seconds, task.batches)
        results[model] = gflop(registered()[model], read(pt).metadata.spec, size), speeds
    return results


def served(
    store: Path,
    tasks: Mapping[str, Task],
    device: str,
    picture: Path,
    count: int,
    *,
    float32: bool,
) -> dict[str, list[Round]]:
    """Rounds by model: lone clients and, for classifiers, many, for both sides of each pair.

    Only the servers of one pair run at a time, since idle ones use the CPU too.
    """
    rounds: dict[str, list[dict[str, Result]]] = {m: [{} for _ in range(count)] for m in tasks}
    has_int8 = [
        model
        for model in tasks
        if read(store / f"{model}.pt").metadata.precisions.get("int8", {}).get("passed")
    ]
    pairs = [(ENGINES, [*tasks])] + [(FLOAT32, [*tasks])] * float32
    pairs += [(INT8, has_int8)] if has_int8 and native(device) == "bfloat16" else []
    for pair, models in pairs:
        with contextlib.ExitStack() as stack:
            sides = [_start(stack, store, device, models, n, side) for n, side in enumerate(pair)]
            for model in models:
                urls = {about[model]: url for url, about in sides}
                if len(urls) == 2:  # else there is one engine here
                    _compare(model, tasks[model], picture, urls, rounds[model])
    return {model: [row for row in each if row] for model, each in rounds.items()}


def _start(
    stack: contextlib.ExitStack, store: Path, device: str, models: list[str], n: int, side: Side
) -> tuple[str, dict[str, str]]:
    """The URL of a server of ``models``, and the engine and precision of each."""
    logging.info("starting the bundle, engine %s, precision %s", side.engine, side.precision)
    run_folder = RunFolder(FOLDER / f"side-{n}")
    archives = ",".join(f"{model}.mar" for model in models)
    own = bundle.started(store, run_folder.path, device, **side._asdict(), load_models=archives)
    config, _ = stack.enter_context(own)
    management = Management.of(run_folder)
    described = {model: management.describe(model) for model in models}
    return config.inference, {m: f"{d['engine']} {d['precision']}" for m, d in described.items()}


def _compare(
    model: str, task: Task, picture: Path, urls: Mapping[str, str], rounds: list[dict[str, Result]]
) -> None:
    """Add the results of one pair, by engine and precision, to each of ``rounds``."""
    kinds = {"lone": 1, "many": task.clients} if task.name == "classify" else {"lone": 1}
    for url in urls.values():
        measure(Load("warm-up", url, model, picture, task.seconds / 2, task.clients))
    precision = next(iter(urls)).split()[1]
    for row in rounds:
        for kind, clients in kinds.items():
            for name, (label, url) in zip(("first", "second"), urls.items(), strict=True):
                load = Load(f"{label}, {kind}", url, model, picture, task.seconds, clients)
                result = row[f"{precision} {name} {kind}"] = measure(load)
                logging.info("%-10s%s", model, report.line([result]))
