"""Sends mixed uploads to a real server and watches its memory: ``make soak MINUTES=10``.

Exports untrained networks, serves them, sends good, unusual, broken and hostile pictures by every
route, and prints the answers. The exit status is 1 if an answer violates the contract, a worker is
lost, or memory grows.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from matplotlib.figure import Figure
from tqdm import tqdm

from serving.commandline import device
from serving.config import Config
from serving.errors import ServingError
from serving.management import Management
from serving.runfolder import RunFolder
from tests.corpus import Case, cases
from tests.routes import ROUTES, Client
from tools import bundle

CLIENTS = 6
# Triton's threshold for a leak. Until WARM_REQUESTS, caches and pools still fill.
GROWTH_BYTES = 100e6
WARM_REQUESTS = 500
LARGEST = 10
# A real service gets mostly valid uploads, but leaks hide in error paths.
VALID_SHARE = 0.25
SAMPLE_S = 0.5
SETTLE_S = 2.0


@dataclass
class Result:
    """Counts and measurements of a soak. Times are in seconds, memory in bytes."""

    statuses: collections.Counter[tuple[str, int]] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_error: tuple[float, str] = (0.0, "")
    slowest_answer: tuple[float, str] = (0.0, "")
    requests: int = 0
    seconds: float = 0.0
    lost_workers: int = 0
    # (seconds, requests so far, resident bytes by kind of process)
    memory: list[tuple[float, int, dict[str, int]]] = field(default_factory=list)
    # Resident bytes of the idle server after WARM_REQUESTS requests and at the end.
    settled: list[dict[str, int]] = field(default_factory=list)

    def growths(self) -> dict[str, float]:
        """Bytes gained between the two entries of ``settled``, by kind of process."""
        if len(self.settled) < 2:
            return {}
        first, last = self.settled[0], self.settled[-1]
        return {kind: last.get(kind, 0) - size for kind, size in first.items()}

    @property
    def growth(self) -> float:
        """The sum of ``growths()``."""
        return sum(self.growths().values())

    @property
    def peak(self) -> int:
        return max((sum(sizes.values()) for _, _, sizes in self.memory), default=0)

    def faults(self) -> list[str]:
        """Reasons to fail; empty if all is well."""
        faults = list(self.wrong[:20])
        if self.lost_workers:
            faults.append(f"{self.lost_workers} worker(s) were lost")
        if self.growth > GROWTH_BYTES:
            limit = f"{GROWTH_BYTES / 1e6:.0f} MB are allowed"
            faults.append(f"memory grew by {self.growth / 1e6:.0f} MB; {limit}")
        return faults


class Soak:
    """Traffic of ``CLIENTS`` clients to a running server."""

    def __init__(
        self, config: Config, run: RunFolder, *, valid: float = VALID_SHARE, seed: int = 0
    ) -> None:
        """``valid`` is the share of pictures that the server can answer with 200."""
        self._valid = valid
        self._management = Management.of(run)
        self._models = self._management.models()
        self._client = Client(config.inference, config.grpc)
        supervisor = run.supervisor()
        assert supervisor is not None, "the server does not run"
        self._supervisor = supervisor
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._done = threading.Event()
        self.result = Result()

    def run(
        self, *, seconds: float = float("inf"), count: int | None = None, bar: bool = False
    ) -> Result:
        """Send requests until ``seconds`` have passed or ``count`` requests have been sent."""
        workers = self._workers()
        ends = self._started + seconds
        requests = itertools.islice(self._requests(), count)
        with ThreadPoolExecutor(1) as sampler, ThreadPoolExecutor(CLIENTS) as clients:
            sampling = sampler.submit(self._sample)
            total = None if seconds != float("inf") else count
            progress = tqdm(total=total, unit=" requests", disable=None if bar else True)
            limit = threading.Semaphore(CLIENTS * 2)

            def send(case: Case, model: str, route: str) -> None:
                try:
                    self._send(case, model, route)
                finally:
                    progress.update()
                    limit.release()

            for number, (case, model, route) in enumerate(requests):
                if time.monotonic() > ends:
                    break
                if number == WARM_REQUESTS:
                    for _ in range(CLIENTS * 2):
                        limit.acquire()
                    self._settle()
                    limit.release(CLIENTS * 2)
                limit.acquire()
                clients.submit(send, case, model, route)
            clients.shutdown()
            self._settle()
            progress.close()
            self._done.set()
            sampling.result()
        self._client.close()
        self.result.seconds = time.monotonic() - self._started
        self.result.lost_workers = len(workers - self._workers())
        return self.result

    def _requests(self) -> Iterator[tuple[Case, str, str]]:
        valid = [case for case in cases() if case.code == 200]
        invalid = [case for case in cases() if case.code != 200]
        # The largest first, so that their memory is allocated before growth is measured.
        for case in sorted(cases(), key=lambda case: len(case.data))[-LARGEST:]:
            yield from itertools.product([case], self._models, ROUTES)
        while True:
            case = self._random.choice(valid if self._random.random() < self._valid else invalid)
            # Most clients send raw bodies.
            route = self._random.choice(["raw", "raw", *ROUTES])
            yield case, self._random.choice(self._models), route

    def _send(self, case: Case, model: str, route: str) -> None:
        expected = case.expected(model)
        started = time.monotonic()
        try:
            reply = ROUTES[route](self._client, model, case.data, **case.options(model))
            answer = reply.code, reply.kind
        except Exception as error:  # noqa: BLE001 - any exception of a client is a fault to report
            answer = 0, repr(error)
        seconds = time.monotonic() - started
        name = f"{case.name}, {route}, {model}"
        with self._lock:
            result = self.result
            result.requests += 1
            result.statuses[model, answer[0]] += 1
            if answer != expected:
                result.wrong.append(f"{name}: {answer}, not {expected}")
            if answer[0] == 200:
                result.slowest_answer = max(result.slowest_answer, (seconds, name))
            else:
                result.slowest_error = max(result.slowest_error, (seconds, name))

    def _workers(self) -> set[int]:
        return {worker.pid for model in self._models for worker in self._management.workers(model)}

    def _settle(self) -> None:
        """Measure the memory of the idle server.

        A worker keeps the memory of its last requests until a large request makes it return that;
        two of them per worker, so that each gets one.
        """
        largest = max((c for c in cases() if c.code == 200), key=lambda case: len(case.data))
        for model in self._models:
            for _ in range(2 * len(self._management.workers(model))):
                ROUTES["raw"](self._client, model, largest.data)
        time.sleep(SETTLE_S)
        self.result.settled.append(self._resident())

    def _sample(self) -> None:
        while True:
            elapsed = time.monotonic() - self._started
            self.result.memory.append((elapsed, self.result.requests, self._resident()))
            if self._done.wait(SAMPLE_S):
                return

    def _resident(self) -> dict[str, int]:
        """Resident bytes by kind of process."""
        sizes: dict[str, int] = collections.Counter()
        for process in (self._supervisor, *self._supervisor.children(recursive=True)):
            try:
                sizes[_kind(process)] += process.memory_info().rss
            except psutil.Error:
                continue  # it has ended
        return dict(sizes)


def _kind(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if "handlers.pictures" in command:
        return "decode processes"
    if "model_service_worker" in command:
        return "workers"
    if "ModelServer" in command:
        return "Java"
    if "serving serve" in command:
        return "supervisor"
    # TorchServe's collector of system metrics comes and goes.
    return "gateway" if "--disable-hot-restart" in command else "other"


def draw(result: Result, path: Path) -> None:
    """A PNG of the memory of each kind of process over time."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    seconds = [at for at, _, _ in result.memory]
    for kind in ("workers", "Java", "decode processes", "gateway", "supervisor"):
        axes.plot(
            seconds, [sizes.get(kind, 0) / 2**20 for _, _, sizes in result.memory], label=kind
        )
    axes.set(
        title=f"{result.requests} mixed requests, {result.growth / 1e6:+.0f} MB after the first "
        f"{WARM_REQUESTS}",
        xlabel="seconds",
        ylabel="resident memory, MiB",
        ylim=(0, None),
    )
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def report(result: Result) -> str:
    """A table for the terminal."""
    lines = [f"{result.requests} requests in {result.seconds:.0f} s"]
    for model in sorted({name for name, _ in result.statuses}):
        counts = sorted((code, n) for (name, code), n in result.statuses.items() if name == model)
        lines.append(f"  {model:<10} " + ", ".join(f"{code}: {n}" for code, n in counts))
    growths = ", ".join(
        f"{kind} {size / 1e6:+.0f}" for kind, size in sorted(result.growths().items())
    )
    return "\n".join(
        [
            *lines,
            f"slowest error   {result.slowest_error[0]:.2f} s ({result.slowest_error[1]})",
            f"slowest answer  {result.slowest_answer[0]:.2f} s ({result.slowest_answer[1]})",
            f"memory          {result.peak / 2**20:.0f} MiB at the peak, "
            f"{result.growth / 1e6:+.0f} MB from request {WARM_REQUESTS} to the end:",
            f"  {growths}",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--device", type=device, default="auto", help="auto, gpu or cpu")
    parser.add_argument("--picture", type=Path, default=bundle.ROOT / "run" / "soak.png")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        store, run = Path(folder) / "model_store", Path(folder) / "run"
        try:
            bundle.export(store)
            with bundle.started(store, run, arguments.device) as (config, _):
                result = Soak(config, RunFolder(run)).run(seconds=60 * arguments.minutes, bar=True)
        except ServingError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            if (logs := run / "logs").exists():
                shutil.copytree(logs, bundle.ROOT / "run" / "soak-logs", dirs_exist_ok=True)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(result, arguments.picture)
    print(report(result))
    print(f"picture         {arguments.picture}")
    for fault in result.faults():
        print(f"FAULT: {fault}")
    return 1 if result.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
