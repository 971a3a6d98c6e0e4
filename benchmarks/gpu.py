"""ResNet-101 on a GPU: what limits it, how near the server comes, and how exact it stays.

The network may run at the speed of the device, or decoding at that of the cores: the slower of the
two is the limit, and the server is to reach GOAL of it. It is measured with several workers a GPU.
Without a GPU the same runs on the CPU with small settings, to show that it is ready.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.bare import Time, bare
from benchmarks.bundle import bundle, export
from benchmarks.command import status_of
from benchmarks.errors import BenchError
from benchmarks.load import Outcome
from benchmarks.machine import facts, summary, torch_device
from benchmarks.pictures import SIZES, photograph
from benchmarks.processes import ROOT
from benchmarks.server import MODELS
from export import gate
from export.untrained import pictures
from handlers.network.engine import Engine
from handlers.pictures.limits import LIMITS
from handlers.pictures.pool import DecodePool, Pixels
from tests.specs import RESNET101

MODEL = "resnet101"
GOAL = 0.8
DECODE_TIMEOUT_S = 60


@dataclass(frozen=True)
class Settings:
    """Batches of the bare network, workers a device, clients for each worker, seconds of each."""

    batches: tuple[int, ...]
    workers: tuple[int, ...]
    clients: int
    seconds: float
    warm: float


GPU = Settings((1, 2, 4, 8, 16, 32), (1, 2, 4), 32, 8.0, 4.0)
CPU = Settings((1, 2), (1,), 4, 1.0, 1.0)


@dataclass(frozen=True)
class Measured:
    """``network`` by batch, ``decode`` in pictures/s of all cores, ``served`` by workers."""

    machine: dict[str, str | int | float]
    precision: str
    network: dict[int, Time]
    decode: float
    served: dict[int, Outcome]
    parity: dict[str, str]

    @property
    def network_rate(self) -> float:
        """Pictures/s of the bare network in its best batch."""
        return max(time.rate for time in self.network.values())

    @property
    def limit(self) -> tuple[str, float]:
        """What is slower, and its pictures/s."""
        found = {"the bare network": self.network_rate, "decoding on all cores": self.decode}
        return min(found.items(), key=lambda item: item[1])

    @property
    def best(self) -> tuple[int, Outcome]:
        """The number of workers that serves most."""
        return max(self.served.items(), key=lambda item: item[1].throughput)

    @property
    def ratio(self) -> float:
        """The best of the server to the limit."""
        return self.best[1].throughput / self.limit[1]


def measure(store: Path, folder: Path, device: str, settings: Settings) -> Measured:
    """On the export in ``store``; servers keep their logs in ``folder``. ``device``: cpu or cuda.

    Raises BenchError.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        picture = Path(temporary) / "1280x720.jpg"
        picture.write_bytes(photograph(SIZES["1280x720"]))
        with bare(store / f"{MODEL}.pt", device) as process:
            _note("bare network")
            network = {
                batch: process.measure("network", picture, settings.seconds, batch)
                for batch in settings.batches
            }
            precision = process.loaded.precision
        _note("decoding on all cores")
        decode = decode_rate(picture.read_bytes(), settings.seconds)
        _note("parity with float32")
        parities = {model: parity(store / f"{model}.pt", device) for model in MODELS}
        served = {}
        for workers in settings.workers:
            _note(f"bundle with {workers} worker(s) a device")
            served[workers] = _serve(store, folder, device, workers, picture, settings)
    return Measured(facts(device), precision, network, decode, served, parities)


def decode_rate(data: bytes, seconds: float) -> float:
    """Pictures/s through a DecodePool with a process for each core."""
    cores = os.cpu_count() or 1
    pool = DecodePool(RESNET101, LIMITS, cores)

    def work(ends: float) -> int:
        count = 0
        while time.monotonic() < ends:
            pool.decode(data, None, time.monotonic() + DECODE_TIMEOUT_S)
            count += 1
        return count

    with ThreadPoolExecutor(cores) as threads:
        for _ in threads.map(work, [time.monotonic() + seconds / 4] * cores):
            pass  # the processes have started
        begun = time.monotonic()
        count = sum(threads.map(work, [begun + seconds] * cores))
        rate = count / (time.monotonic() - begun)
    pool.close()
    return rate


def parity(pt: Path, device: str) -> str:
    """How far the served precision is from float32 on the same device, as the gate at export says.

    Here it is the device itself that computes, where the gate emulates.
    """
    exact = Engine(pt, torch.device(device), "float32")
    served = Engine(pt, torch.device(device))
    if served.precision == "float32":
        return f"float32 is served: {served.precision_reason}"
    drawn = pictures(16, 224, 224, seed=gate.SEED)
    levels = drawn.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    pixels = [Pixels((224, 224), bytearray(one.numpy().tobytes())) for one in levels]
    with torch.inference_mode():
        outputs = [network(network.preprocess(pixels)) for network in (exact, served)]
    verdict = gate.judge(exact.metadata.spec, *outputs)
    return f"{served.precision}: {verdict['summary']}: {'met' if verdict['passed'] else 'NOT met'}"


def _serve(
    store: Path, folder: Path, device: str, workers: int, picture: Path, settings: Settings
) -> Outcome:
    word = "gpu" if device == "cuda" else "cpu"
    where = folder / f"{workers}-workers"
    with bundle(store, where, word, workers, load_models=f"{MODEL}.mar") as server:
        found = server.measure(
            MODEL,
            picture,
            seconds=settings.seconds,
            warm=settings.warm,
            clients=settings.clients * workers,
        )
    if found.errors:
        raise BenchError(f"{workers} worker(s): {found.errors}")
    return found


def report(measured: Measured) -> str:
    """All of it as lines; the last says what the limit was, and the ratio to it."""
    lines = [summary(measured.machine), "", f"{MODEL}, 1280x720 {'':<16} pictures/s"]
    for batch, found in measured.network.items():
        name = f"bare network, {measured.precision}, batch {batch}"
        lines.append(f"  {name:<38} {found.rate:>8.1f}")
    lines.append(f"  {'decoding on all cores':<38} {measured.decode:>8.1f}")
    for workers, outcome in measured.served.items():
        busy = ", the clients may have been the limit" if outcome.bottleneck else ""
        lines.append(
            f"  {f'bundle, {workers} worker(s)':<38} {outcome.throughput:>8.1f}"
            f"   p50 {outcome.p50:.0f} ms, p99 {outcome.p99:.0f} ms{busy}"
        )
    lines += ["", *(f"parity of {model}: {text}" for model, text in measured.parity.items())]
    (limit, rate), (workers, outcome) = measured.limit, measured.best
    verdict = "met" if measured.ratio >= GOAL else "NOT met"
    lines.append(
        f"limit: {limit}, {rate:.1f} pictures/s; with {workers} worker(s) the bundle reaches "
        f"{measured.ratio:.2f} of it, goal >= {GOAL:.2f}: {verdict}"
    )
    return "\n".join(lines)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=("auto", "gpu", "cpu"), default="auto")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "run" / "bench-gpu.json", metavar="FILE",
        help="every measurement (default: run/bench-gpu.json)",
    )  # fmt: skip
    arguments = parser.parse_args()
    folder = ROOT / "run" / "bench"
    device = torch_device(arguments.device)
    export(folder / "model_store")
    settings = GPU if device == "cuda" else CPU
    measured = measure(folder / "model_store", folder / "gpu", device, settings)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    found = {**dataclasses.asdict(measured), "limit": measured.limit, "ratio": measured.ratio}
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(report(measured))
    return 0


if __name__ == "__main__":
    sys.exit(status_of(main))
