"""How to share the cores: one worker with all of them, or several with a part each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from export.networks import registered
from serving.config import Config
from tools import bundle
from tools.bench import report
from tools.bench.common import FOLDER, TASKS, Result
from tools.bench.load import Load, measure
from tools.bench.pictures import photographs

# By number of workers: a lone client, and the clients of the network's task, in each round.
Served = Mapping[int, Sequence[tuple[Result, Result]]]


def run(_config: Config, device: str, quick: bool, store: Path) -> int:
    print(report.machine(device))
    for model in (name for name, network in registered().items() if network.task == "classify"):
        print(table(model, compare(model, store, device, 1 if quick else 3)), flush=True)
    return 0


def compare(model: str, store: Path, device: str, rounds: int) -> Served:
    """The bundle by workers; all run at once, and the rounds interleave them."""
    picture, task = photographs(FOLDER)["1280x720"], TASKS["classify"]
    counts = [n for n in (1, 2, 4) if n <= max(os.cpu_count() or 1, 2)]
    served: dict[int, list[tuple[Result, Result]]] = {n: [] for n in counts}
    with contextlib.ExitStack() as stack:
        urls = {}
        for n in counts:
            folder = FOLDER / f"threads-{n}"
            own = bundle.started(store, folder, device, n, load_models=f"{model}.mar")
            urls[n] = stack.enter_context(own)[0].inference
            measure(Load("warm-up", urls[n], model, picture, task.seconds / 2, task.clients))
        for _ in range(rounds):
            for n, url in urls.items():
                lone, many = (
                    measure(Load(f"{n} worker(s)", url, model, picture, task.seconds, clients))
                    for clients in (1, task.clients)
                )
                served[n].append((lone, many))
    return served


def table(model: str, served: Served) -> str:
    """Medians over the rounds, a line for each number of workers."""
    cores, clients = os.cpu_count() or 1, TASKS["classify"].clients
    lines = [f"{model:<28} {f'pictures/s, {clients} clients':>24} {'p50 of a lone client':>24}  ms"]
    for n, rounds in served.items():
        label = f"{n} worker(s), {max(cores // n, 1)} thread(s) each"
        rate = median(many.rate for _, many in rounds)
        lines.append(f"  {label:<26} {rate:>24.2f} {median(r.ms[0] for r, _ in rounds):>24.1f}")
    return "\n".join(lines)
