"""How fast it is, beside the bare network and stock TorchServe, in one interleaved run.

The networks are untrained, which costs what trained ones cost. Everything is started once; then
rounds of every measurement follow each other. Prints the goals, each met or NOT met; they are facts
and no failures.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import stock
from benchmarks.bare import bare
from benchmarks.bundle import bundle, export
from benchmarks.command import status_of
from benchmarks.drawing import Curves, draw
from benchmarks.goals import Round, goals
from benchmarks.machine import facts, summary, torch_device
from benchmarks.pictures import SIZES, photograph
from benchmarks.processes import ROOT
from benchmarks.report import figure_table, goal_table, ratio_table
from benchmarks.rounds import Durations, Notes, Subject, check_quiet
from benchmarks.server import MODELS
from serving.machine import DEVICES

EPILOG = """\
Exit status: 0 everything was measured, 1 something was not and the reason is printed.
"""

FOLDER = ROOT / "run" / "bench"

ROUNDS, QUICK_ROUNDS = 3, 1
# A slow model needs longer for as many batches.
DURATIONS = {"resnet101": Durations(4, 10, 3), "cyclegan": Durations(5, 14, 4)}
QUICK_DURATIONS = {"resnet101": Durations(2, 5, 2), "cyclegan": Durations(2, 6, 3)}


@dataclasses.dataclass(frozen=True)
class Measured:
    """Everything that one run has found."""

    machine: dict[str, str | int | float]
    precisions: dict[str, str]
    rounds: dict[str, list[Round]]
    curves: dict[str, Curves]
    start_s: float


def measure(device: str, quick: bool, note: Notes) -> Measured:
    """Start everything, measure, and end everything. Raises BenchError and ServingError."""
    torch = torch_device(device)
    store = FOLDER / "model_store"
    with contextlib.ExitStack() as stack:
        note("export of untrained networks: what is there already is kept")
        export(store)
        stock.archive(FOLDER / "stock", store / "cyclegan.pt")
        note("start of the bundle, of stock TorchServe twice and of the bare networks")
        ours = stack.enter_context(bundle(store, FOLDER / "server", device))
        theirs, one = (
            stack.enter_context(stock.stock(FOLDER / "stock", FOLDER / logs, device, workers))
            for logs, workers in (("stock-logs", None), ("stock-one-logs", 1))
        )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        pictures = {name: folder / f"{name}.jpg" for name in SIZES}
        for name, path in pictures.items():
            path.write_bytes(photograph(SIZES[name]))
        durations = QUICK_DURATIONS if quick else DURATIONS
        subjects = []
        machine = facts(torch)
        precisions = {}
        for model in MODELS:
            process = stack.enter_context(bare(store / f"{model}.pt", torch))
            machine["threads"] = process.loaded.threads
            served = ours.management.describe(model)
            precisions[model] = f"{served['precision']}: {served['precision_reason']}"
            if served["precision"] != process.loaded.precision:
                note.faults.append(f"{model} is bare in {process.loaded.precision}, not as served")
            subjects.append(
                Subject(model, process, theirs, one, ours, pictures, durations[model], note)
            )
        for subject in subjects:
            subject.warm_up()
        rounds: dict[str, list[Round]] = {model: [] for model in MODELS}
        count = QUICK_ROUNDS if quick else ROUNDS
        for number in range(count):
            note(f"round {number + 1} of {count}")
            check_quiet(note)
            for subject in subjects:
                rounds[subject.model].append(subject.round())
        curves = {
            subject.model: subject.curves(rounds[subject.model][-1], brief=quick)
            for subject in subjects
        }
        return Measured(machine, precisions, rounds, curves, ours.start_s)


def write_json(measured: Measured, note: Notes, path: Path) -> None:
    found: dict[str, Any] = dataclasses.asdict(measured)
    found["goals"] = [
        {**dataclasses.asdict(goal), "met": goal.met}
        for goal in goals(measured.rounds, measured.start_s)
    ]
    found |= {"faults": note.faults, "remarks": note.remarks}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def main() -> int:
    arguments = _parser().parse_args()
    note = Notes(time.monotonic())
    measured = measure(arguments.device, arguments.quick, note)
    write_json(measured, note, arguments.json)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(measured.rounds, measured.curves, summary(measured.machine), arguments.picture)
    print(summary(measured.machine))
    for model, precision in measured.precisions.items():
        print(f"{model} in {precision}")
    for model, found in measured.rounds.items():
        print(f"\n{figure_table(model, found)}")
    for model, found in measured.rounds.items():
        print(f"\n{ratio_table(model, found)}")
    print(f"\n{goal_table(goals(measured.rounds, measured.start_s))}")
    print(f"\n{arguments.json}, {arguments.picture}")
    for remark in note.remarks:
        print(f"note: {remark}")
    for fault in note.faults:
        print(f"FAULT: {fault}")
    return 1 if note.faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true",
        help="one round, and no curves: six minutes on two cores instead of half an hour",
    )  # fmt: skip
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: auto")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "run" / "bench.json", metavar="FILE",
        help="every measurement and the machine's facts (default: run/bench.json)",
    )  # fmt: skip
    parser.add_argument(
        "--picture", type=Path, default=ROOT / "run" / "bench.png", metavar="FILE",
        help="throughput and latency against load (default: run/bench.png)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(status_of(main))
