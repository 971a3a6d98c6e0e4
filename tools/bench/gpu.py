"""What limits a classifier on a GPU, and how near the bundle comes with how many workers.

The slower of the bare network and decoding on all cores is the limit. Without a GPU the same runs
on the CPU with small settings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from export.networks import registered
from serving.config import Config
from tools import bundle
from tools.bench import report
from tools.bench.bare import bare
from tools.bench.common import FOLDER, Result
from tools.bench.load import Load, measure
from tools.bench.pictures import photographs

GOAL = 0.8
# Batches of the bare network, workers, clients for each worker, seconds of a measurement.
SETTINGS = {"gpu": ((1, 2, 4, 8, 16, 32), (1, 2, 4), 32, 8.0), "cpu": ((1, 2), (1,), 4, 1.0)}


def run(_config: Config, device: str, _quick: bool, store: Path) -> int:
    print(report.machine(device))
    for model in (name for name, network in registered().items() if network.task == "classify"):
        floors, served = compare(model, store, FOLDER, device)
        print(model, *(report.line([result]) for result in floors + served), sep="\n")
        print(verdict(floors, served))
    return 0


def compare(
    model: str, store: Path, folder: Path, device: str
) -> tuple[list[Result], list[Result]]:
    """The bare network by batch, then decoding; the bundle by workers."""
    batches, workers, clients, seconds = SETTINGS[device]
    picture, served = photographs(folder)["1280x720"], []
    with bare(store / f"{model}.pt", device, picture, max(batches)) as floor:
        floors = [floor("network", seconds, (batch,)) for batch in batches]
        floors.append(floor("decode", seconds, (4 * (os.cpu_count() or 1),)))
    for n in workers:
        own = bundle.started(store, folder / "gpu", device, n, load_models=f"{model}.mar")
        with own as (config, _):
            how = config.inference, model, picture, seconds, n * clients
            served.append(measure(Load(f"bundle, {n} worker(s)", *how)))
    return floors, served


def verdict(floors: Sequence[Result], served: Sequence[Result]) -> str:
    """What the limit is, and how near the best of ``served`` comes."""
    rate = attrgetter("rate")
    limit = min(max(floors[:-1], key=rate), floors[-1], key=rate)
    best = max(served, key=rate)
    ratio = best.rate / limit.rate
    return (
        f"limit: {limit.label}, {limit.rate:.1f} pictures/s; {best.label} reaches "
        f"{ratio:.2f} of it, goal >= {GOAL:.2f}: {'met' if ratio >= GOAL else 'NOT met'}"
    )
