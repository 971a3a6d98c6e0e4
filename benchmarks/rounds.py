"""What one round measures of one model, and the bundle's curves against load."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.bare import Bare, Time, Work
from benchmarks.drawing import Curves
from benchmarks.errors import BenchError
from benchmarks.goals import CLIENTS, Round
from benchmarks.load import Outcome, Route
from benchmarks.server import Server

CURVE_CLIENTS = (1, 4, 16, 32)
# Shares of the closed loop's throughput; the sweep ends at the knee.
CURVE_RATES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
# An answer that comes so many times later than alone is beyond the knee.
KNEE = 5.0
# So many requests make a p95: a slow model gets more time for them, up to OPEN_MAX_S.
OPEN_REQUESTS = 40
OPEN_MAX_S = 30.0
# What may be busy for QUIET_S while the bench itself does nothing: idle servers and the system.
QUIET_SHARE = 0.10
QUIET_S = 2.0


@dataclass(frozen=True)
class Durations:
    """Seconds of one measurement: of a bare one, of a load, and of a load's warm-up."""

    bare: float
    load: float
    warm: float


@dataclass
class Notes:
    """Progress on standard error, and what must be said at the end.

    ``faults`` could not be measured as they should; ``remarks`` put a figure in doubt.
    """

    started: float
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> None:
        seconds = time.monotonic() - self.started
        print(f"{seconds:6.0f} s  {text}", file=sys.stderr, flush=True)


def check_quiet(note: Notes) -> None:
    """Remark on what else runs, while everything of the bench waits: it slows all unevenly."""
    busy = psutil.cpu_percent(QUIET_S) / 100
    if busy > QUIET_SHARE:
        note.remarks.append(f"other processes took {busy:.0%} of the CPU: measure again without")
        note(note.remarks[-1])


@dataclass(frozen=True)
class Subject:
    """One model, everywhere it can be measured."""

    model: str
    bare: Bare
    stock: Server
    stock_one: Server
    bundle: Server
    pictures: dict[str, Path]
    durations: Durations
    note: Notes

    def warm_up(self) -> None:
        """TorchScript optimises on a worker's first batches, of each size anew."""
        servers = {"stock": self.stock, "stock, one worker": self.stock_one, "bundle": self.bundle}
        for name, server in servers.items():
            self.note(f"{self.model:<10} warm-up of {name}")
            server.measure(
                self.model,
                self.pictures["1280x720"],
                seconds=self.durations.warm,
                warm=0,
                clients=CLIENTS[self.model],
            )

    def round(self) -> Round:
        """One after the other, so that a slow minute of the machine falls on few."""
        return Round(
            network=self._bare("network"),
            network_one=self._bare("network", batch=1),
            decode=self._bare("decode", batch=1),
            pipeline=self._bare("pipeline"),
            stock=self._load("stock", self.stock),
            stock_one=self._load("stock, one worker", self.stock_one),
            rest=self._load("bundle, REST", self.bundle),
            grpc=self._load("bundle, gRPC", self.bundle, route="grpc"),
            lone=self._load("bundle, lone client", self.bundle, clients=1),
            large=self._load("bundle, 12 MP", self.bundle, picture="12 MP"),
            small=self._load("bundle, 320x240", self.bundle, picture="320x240"),
            worker_rss=self.bundle.rss(self.model),
        )

    def curves(self, last: Round, *, brief: bool) -> Curves:
        """The bundle against load; what ``last`` has measured is taken from it, and is all where
        ``brief``.
        """
        many = CLIENTS[self.model]
        found = Curves(closed={1: last.lone, many: last.rest})
        if brief:
            return found
        for clients in CURVE_CLIENTS:
            if clients not in found.closed:
                text = f"bundle, {clients} clients"
                found.closed[clients] = self._load(text, self.bundle, clients=clients)
        most = max(outcome.throughput for outcome in found.closed.values())
        for share in CURVE_RATES:
            rate = share * most
            outcome = self._open(rate)
            found.open[rate] = outcome
            if outcome.grows or outcome.p95 > KNEE * last.lone.p50:
                self.note(f"{self.model:<10} the knee is at {share:.0%} of {most:.1f}/s")
                break
        return found

    def _bare(self, work: Work, batch: int | None = None) -> Time:
        picture = self.pictures["1280x720"]
        found = self.bare.measure(work, picture, self.durations.bare, batch)
        self.note(f"{self.model:<10} bare {work}: {found.ms:.1f} ms, batch {found.batch}")
        return found

    def _load(
        self,
        text: str,
        server: Server,
        *,
        picture: str = "1280x720",
        route: Route = "rest",
        clients: int | None = None,
    ) -> Outcome:
        outcome = server.measure(
            self.model,
            self.pictures[picture],
            seconds=self.durations.load,
            warm=self.durations.warm,
            route=route,
            clients=clients or CLIENTS[self.model],
        )
        self._check(text, outcome)
        if outcome.errors:  # an open loop beyond the knee may be refused, a closed one not
            self.note.faults.append(f"{self.model}, {text}: {outcome.errors}")
        return outcome

    def _open(self, rate: float) -> Outcome:
        seconds = min(max(self.durations.load, OPEN_REQUESTS / rate), OPEN_MAX_S)
        outcome = self.bundle.measure(
            self.model,
            self.pictures["1280x720"],
            seconds=seconds,
            warm=self.durations.warm,
            rate=rate,
        )
        self._check(f"bundle at {rate:.1f} requests/s", outcome)
        return outcome

    def _check(self, text: str, outcome: Outcome) -> None:
        if not outcome.latencies:
            raise BenchError(f"{self.model}, {text}: no good answer, but {outcome.errors}")
        if outcome.bottleneck:
            self.note.remarks.append(
                f"{self.model}, {text}: the clients took {outcome.cpu:.0%} of a core and may have "
                "been what limited it"
            )
        self.note(
            f"{self.model:<10} {text}: {outcome.throughput:.2f}/s, p50 {outcome.p50:.0f} ms, "
            f"p99 {outcome.p99:.0f} ms"
        )
