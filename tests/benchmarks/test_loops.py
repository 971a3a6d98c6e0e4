"""Closed and open loops by their laws, against servers whose answers take known times."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.load import closed_throughput, open_throughput, summary
from benchmarks.loops import Run, Sample, arrivals, closed, open_loop

pytestmark = pytest.mark.slow

SERVICE_S = 0.02


class Serial:
    """Answers one request after the other, in SERVICE_S each; every ``fails``-th with an error."""

    def __init__(self, fails: int = 0) -> None:
        self._turns = ThreadPoolExecutor(1)
        self._fails = fails
        self.answered: list[float] = []

    def __call__(self) -> str:
        return self._turns.submit(self._answer).result()

    def _answer(self) -> str:
        time.sleep(SERVICE_S)
        self.answered.append(time.monotonic())
        return "503" if self._fails and len(self.answered) % self._fails == 0 else ""

    def rate(self, run: Run) -> float:
        """Answers per second of the window, errors too: what this machine made of SERVICE_S."""
        counted = [at for at in self.answered if run.begin <= at < run.end]
        return len(counted) / (run.end - run.begin)


def test_closed_loop_gives_the_rate_of_the_server() -> None:
    clients, server = 4, Serial()
    run = closed([server] * clients, seconds=1.0, warm=0.2)
    throughput = closed_throughput(run, clients)
    assert throughput == pytest.approx(server.rate(run), rel=0.2)
    # By Little's law.
    assert summary(run, 0.0).p50 == pytest.approx(1e3 * clients / throughput, rel=0.2)


def test_closed_loop_does_not_count_by_the_window() -> None:
    """Answers in batches of 8 every second, a window of 1.5 s: a count would give 5.3 or 10.7."""
    cycles = [Sample(float(i), i + 1.0, "") for i in range(1, 3) for _ in range(8)]
    assert closed_throughput(Run(cycles, 0.5, 2.0, 0.0), 8) == pytest.approx(8.0)


def test_each_client_of_a_closed_loop_ends_a_cycle_however_long() -> None:
    def slow() -> str:
        time.sleep(0.3)
        return ""

    run = closed([slow] * 2, seconds=0.1, warm=0)
    assert len(run.samples) == 2


def test_errors_take_time_and_count_for_nothing() -> None:
    server = Serial(fails=2)
    run = closed([server], seconds=0.6, warm=0)
    assert closed_throughput(run, 1) == pytest.approx(server.rate(run) / 2, rel=0.2)
    found = summary(run, 0.0)
    assert found.errors.keys() == {"503"}
    assert len(found.latencies) == pytest.approx(found.errors["503"], abs=1)


def test_arrivals_are_a_poisson_process() -> None:
    times = list(arrivals(100, 100, seed=1))
    gaps = [b - a for a, b in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.01, rel=0.05)
    assert variance == pytest.approx(mean**2, rel=0.1)  # exponential gaps
    assert times == list(arrivals(100, 100, seed=1))
    assert times != list(arrivals(100, 100, seed=2))


def test_open_loop_below_capacity_is_answered_at_its_rate() -> None:
    rate = 0.3 / SERVICE_S
    run = open_loop([Serial()] * 16, rate=rate, seconds=1.5, warm=0.1, seed=3)
    found = summary(run, open_throughput(run))
    assert found.throughput == pytest.approx(len(run.samples) / 1.5, rel=0.1)
    assert not found.grows


def test_open_loop_over_capacity_is_charged_for_all_who_wait() -> None:
    """Even those that no client was free to send: their time runs from when they were due."""
    server = Serial()
    run = open_loop([server] * 2, rate=3 / SERVICE_S, seconds=1.0, warm=0, seed=4)
    found = summary(run, open_throughput(run))
    assert found.throughput == pytest.approx(server.rate(run), rel=0.2)
    # 150 come in a second and take three: the last waits for two of them.
    assert found.latencies[-1] > 1e3
    assert found.grows


def test_warm_up_is_not_counted() -> None:
    run = open_loop([Serial()] * 4, rate=20, seconds=0.5, warm=0.5, seed=5)
    assert all(run.begin <= sample.due < run.end for sample in run.samples)
