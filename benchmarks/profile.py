"""Where a request's time goes, stage by stage, from the running server's own metrics.

Sends a photograph to each model for a while, and takes the difference of its counters. ``http`` is
what the client saw and TorchServe did not; ``transfer`` is what TorchServe saw and the handler did
not: to the worker and back. Stages are those of a batch, in which every member waits for the
others. On a GPU work is asynchronous: what preprocessing starts there ends in ``network``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.command import status_of
from benchmarks.errors import BenchError
from benchmarks.load import Load, Outcome, measure
from benchmarks.pictures import SIZES, photograph
from handlers.stages import BATCH, SECONDS, STAGES
from serving.config import Config

# (name of a sample, its labels that we look at) -> value
Counters = Mapping[tuple[str, str, str], float]

WARM_S = 1.0
BAR = 40


@dataclass(frozen=True)
class Profile:
    """Mean ms of a request by stage, in order, and members of its batch."""

    stages: Mapping[str, float]
    members: float
    outcome: Outcome


def profile(config: Config, model: str, picture: Path, clients: int, seconds: float) -> Profile:
    """Load ``model`` of the running server and read what that changed in its metrics."""
    address = urlsplit(config.inference).netloc
    before = _counters(config)
    outcome = measure(Load("rest", address, model, str(picture), seconds, WARM_S, clients=clients))
    after = _counters(config)
    if not outcome.latencies:
        raise BenchError(f"{model} gave no good answer: {outcome.errors}")

    def gained(name: str, stage: str = "") -> float:
        key = name, model, stage
        return after.get(key, 0.0) - before.get(key, 0.0)

    requests_, batches = gained("ts_inference_requests_total"), gained(f"{BATCH}_count")
    if not batches:
        raise BenchError(f"{model} reports no stages: its archive is older than this code")
    # The parser gives counters the ending _total, whatever they are called.
    seen = gained("ts_inference_latency_microseconds_total") / requests_ / 1e3
    queue = gained("ts_queue_latency_microseconds_total") / requests_ / 1e3
    handler = {stage: 1e3 * gained(f"{SECONDS}_sum", stage) / batches for stage in STAGES}
    client = sum(outcome.latencies) / len(outcome.latencies)
    stages = {
        "http": max(client - seen, 0.0),
        "queue": queue,
        "transfer": max(seen - queue - sum(handler.values()), 0.0),
        **handler,
    }
    return Profile(stages, gained(f"{BATCH}_sum") / batches, outcome)


def table(model: str, found: Profile, clients: int) -> str:
    """For a person: each stage with its share as a bar."""
    total = sum(found.stages.values())
    lines = [
        f"{model}, {clients} client(s): {found.outcome.throughput:.1f} requests/s, p50 "
        f"{found.outcome.p50:.0f} ms, {found.members:.1f} requests a batch"
    ]
    for stage, ms in found.stages.items():
        lines.append(
            f"  {stage:<10} {ms:>9.1f} ms {ms / total:>6.1%}  {'#' * round(BAR * ms / total)}"
        )
    return "\n".join(lines)


def _counters(config: Config) -> Counters:
    response = requests.get(f"{config.metrics}/metrics", timeout=30)
    response.raise_for_status()
    return {
        (
            sample.name,
            sample.labels.get("ModelName") or sample.labels.get("model_name", ""),
            sample.labels.get("Stage", ""),
        ): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def main() -> int:
    arguments = _parser().parse_args()
    config = Config.read(arguments.config)
    models = [path.stem for path in config.archives]
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        picture = Path(folder) / "photograph.jpg"
        picture.write_bytes(photograph(SIZES[arguments.size]))
        for model in models:
            for clients in arguments.clients:
                found = profile(config, model, picture, clients, arguments.seconds)
                print(f"{table(model, found, clients)}\n", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=Path("config.properties"), metavar="FILE",
        help="the running server's (default: config.properties)",
    )  # fmt: skip
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], metavar="N")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--size", choices=list(SIZES), default="1280x720")
    return parser


if __name__ == "__main__":
    sys.exit(status_of(main))
