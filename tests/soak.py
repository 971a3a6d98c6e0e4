"""Hours of strangers in minutes: a real server under mixed uploads, its memory watched throughout.

``make soak MINUTES=10`` exports untrained networks, serves them, sends good, odd, broken and
hostile pictures by every route, and prints what came back. It ends with exit status 1 if an answer
was not the contract's, a worker was lost, a bystander noticed, or memory grew.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import random
import shutil
import subprocess
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

from serving.config import Config
from serving.management import Management
from serving.runfolder import RunFolder
from tests.corpus import Case, cases
from tests.routes import ROUTES, Client

ROOT = Path(__file__).parents[1]
CLIENTS = 6
# Triton's own bar for a leak; before WARM_REQUESTS caches and pools still fill.
GROWTH_BYTES = 100e6
WARM_REQUESTS = 500
LARGEST = 10
# Most uploads of a real service are sound, but refusals are where leaks hide.
SOUND_SHARE = 0.25
SAMPLE_S = 0.5
SETTLE_S = 2.0


@dataclass
class Result:
    """What a soak has seen. Times in seconds, memory in bytes."""

    statuses: collections.Counter[tuple[str, int]] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_refusal: tuple[float, str] = (0.0, "")
    slowest_answer: tuple[float, str] = (0.0, "")
    requests: int = 0
    seconds: float = 0.0
    lost_workers: int = 0
    # (seconds, requests so far, resident bytes by kind of process)
    memory: list[tuple[float, int, dict[str, int]]] = field(default_factory=list)
    # The same at rest, after WARM_REQUESTS requests and at the end.
    settled: list[dict[str, int]] = field(default_factory=list)

    def growths(self) -> dict[str, float]:
        """Bytes that each kind of process gained from the WARM_REQUESTS-th request to the end."""
        if len(self.settled) < 2:
            return {}
        first, last = self.settled[0], self.settled[-1]
        return {kind: last.get(kind, 0) - size for kind, size in first.items()}

    @property
    def growth(self) -> float:
        """All of that together."""
        return sum(self.growths().values())

    @property
    def peak(self) -> int:
        return max((sum(parts.values()) for _, _, parts in self.memory), default=0)

    def faults(self) -> list[str]:
        """What must not be; empty where all is well."""
        found = list(self.wrong[:20])
        if self.lost_workers:
            found.append(f"{self.lost_workers} worker(s) were lost")
        if self.growth > GROWTH_BYTES:
            found.append(f"memory grew by {self.growth / 1e6:.0f} MB; {GROWTH_BYTES / 1e6:.0f} may")
        return found


class Soak:
    """Traffic of ``CLIENTS`` clients on a running server."""

    def __init__(
        self, config: Config, run: RunFolder, *, sound: float = SOUND_SHARE, seed: int = 0
    ) -> None:
        """``sound`` is the share of pictures that can be answered."""
        self._models = [path.stem for path in config.archives]
        self._sound = sound
        self._management = Management(config, run)
        self._client = Client(config)
        self._supervisor = run.supervisor()
        self._source = random.Random(seed)
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._done = threading.Event()
        self.result = Result()

    def run(
        self, *, seconds: float = float("inf"), count: int | None = None, bar: bool = False
    ) -> Result:
        """Send for ``seconds`` or ``count`` requests, whichever ends first."""
        workers = self._workers()
        ends = self._started + seconds
        chosen = itertools.islice(self._cases(), count)
        with ThreadPoolExecutor(1) as sampler, ThreadPoolExecutor(CLIENTS) as clients:
            sampling = sampler.submit(self._sample)
            total = None if seconds != float("inf") else count
            progress = tqdm(total=total, unit=" requests", disable=None if bar else True)
            limit = threading.Semaphore(CLIENTS * 2)

            def one(case: Case, model: str, route: str) -> None:
                try:
                    self._ask(case, model, route)
                finally:
                    progress.update()
                    limit.release()

            for number, (case, model, route) in enumerate(chosen):
                if time.monotonic() > ends:
                    break
                if number == WARM_REQUESTS:
                    for _ in range(CLIENTS * 2):
                        limit.acquire()
                    self._settle()
                    limit.release(CLIENTS * 2)
                limit.acquire()
                clients.submit(one, case, model, route)
            clients.shutdown()
            self._settle()
            progress.close()
            self._done.set()
            sampling.result()
        self._client.close()
        self.result.seconds = time.monotonic() - self._started
        self.result.lost_workers = len(workers - self._workers())
        return self.result

    def _cases(self) -> Iterator[tuple[Case, str, str]]:
        sound = [case for case in cases() if case.code == 200]
        others = [case for case in cases() if case.code != 200]
        # The largest first, so that the memory they take is taken when the watch on growth begins.
        for case in sorted(cases(), key=lambda case: len(case.data))[-LARGEST:]:
            yield from itertools.product([case], self._models, ROUTES)
        while True:
            case = self._source.choice(sound if self._source.random() < self._sound else others)
            # Most come as most clients send them.
            route = self._source.choice(["raw", "raw", *ROUTES])
            yield case, self._source.choice(self._models), route

    def _ask(self, case: Case, model: str, route: str) -> None:
        expected = case.expected(model)
        begun = time.monotonic()
        try:
            reply = ROUTES[route](self._client, model, case.data, **case.options(model))
            got = reply.code, reply.kind
        except Exception as error:  # noqa: BLE001 - whatever a client meets is what we look for
            got = 0, repr(error)
        took = time.monotonic() - begun, f"{case.name}, {route}, {model}"
        with self._lock:
            result = self.result
            result.requests += 1
            result.statuses[model, got[0]] += 1
            if got != expected:
                result.wrong.append(f"{took[1]}: {got}, not {expected}")
            if got[0] == 200:
                result.slowest_answer = max(result.slowest_answer, took)
            else:
                result.slowest_refusal = max(result.slowest_refusal, took)

    def _workers(self) -> set[int]:
        return {worker.pid for model in self._models for worker in self._management.workers(model)}

    def _settle(self) -> None:
        """Take the memory at rest: what a worker holds of its last large requests is no growth.

        A large one makes it give that back; two a worker, so that each has one.
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
        """Bytes in memory by kind of process."""
        parts: dict[str, int] = collections.Counter()
        assert self._supervisor is not None
        for process in self._supervisor.children(recursive=True):
            try:
                parts[_kind(process)] += process.memory_info().rss
            except psutil.Error:
                continue  # it has ended meanwhile
        return dict(parts)


def _kind(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if "handlers.pictures" in command:
        return "decode processes"
    if "model_service_worker" in command:
        return "workers"
    # TorchServe's own collector of system metrics comes and goes.
    return "Java" if "ModelServer" in command else "other"


def draw(result: Result, path: Path) -> None:
    """Memory of each kind of process over time, as a PNG."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    seconds = [at for at, _, _ in result.memory]
    for kind in ("workers", "Java", "decode processes"):
        sizes = [parts.get(kind, 0) / 2**20 for _, _, parts in result.memory]
        axes.plot(seconds, sizes, label=kind)
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
    lines = [
        f"{result.requests} requests in {result.seconds:.0f} s",
        *(
            f"  {model:<10} "
            + ", ".join(
                f"{code}: {n}"
                for (name, code), n in sorted(result.statuses.items())
                if name == model
            )
            for model in sorted({name for name, _ in result.statuses})
        ),
        f"slowest refusal {result.slowest_refusal[0]:.2f} s ({result.slowest_refusal[1]})",
        f"slowest answer  {result.slowest_answer[0]:.2f} s ({result.slowest_answer[1]})",
        f"memory          {result.peak / 2**20:.0f} MiB at the peak, {result.growth / 1e6:+.0f} MB "
        f"from request {WARM_REQUESTS} to the end:",
        "  "
        + ", ".join(f"{kind} {size / 1e6:+.0f}" for kind, size in sorted(result.growths().items())),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--device", default="auto", help="auto, gpu or cpu")
    parser.add_argument("--picture", type=Path, default=ROOT / "run" / "soak.png")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        store, run = Path(folder) / "model_store", Path(folder) / "run"
        python = [sys.executable, "-m"]
        export = [*python, "export", "--weights", "random", "--model-store", str(store)]
        subprocess.run(export, cwd=ROOT, check=True)
        config = Config.read(ROOT / "config.properties")
        path = Path(folder) / "config.properties"
        config.write(path, model_store=str(store))
        where = ["--config", str(path), "--run-dir", str(run)]
        start = [*python, "serving", "start", *where, "--device", arguments.device]
        if subprocess.run(start, cwd=ROOT, check=False).returncode:
            return 1
        try:
            soak = Soak(Config.read(path), RunFolder(run))
            result = soak.run(seconds=60 * arguments.minutes, bar=True)
        finally:
            subprocess.run([*python, "serving", "stop", *where], cwd=ROOT, check=False)
            shutil.copytree(run / "logs", ROOT / "run" / "soak-logs", dirs_exist_ok=True)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(result, arguments.picture)
    print(report(result))
    print(f"picture         {arguments.picture}")
    for fault in result.faults():
        print(f"FAULT: {fault}")
    return 1 if result.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
