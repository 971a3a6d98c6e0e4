"""The order of measurements, the sweep to the knee, and what is said of doubtful ones."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import BenchError
from benchmarks.load import Outcome
from benchmarks.pictures import SIZES
from benchmarks.rounds import Durations, Notes, Subject
from tests.benchmarks.samples import a_round, outcome


class FakeServer:
    """Answers each measurement with what ``answer`` makes of its options."""

    def __init__(self, answer: Callable[..., Outcome]) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def measure(self, model: str, picture: Path, **options: Any) -> Outcome:
        self.asked.append(options)
        return self.answer(**options)


def subject(answer: Callable[..., Outcome]) -> tuple[Subject, FakeServer]:
    server: Any = FakeServer(answer)
    bare: Any = None
    pictures = {name: Path(name) for name in SIZES}
    note = Notes(time.monotonic())
    durations = Durations(1.0, 10.0, 1.0)
    servers = (server, server, server)
    return Subject("resnet101", bare, *servers, pictures, durations, note), server


def test_the_sweep_ends_where_answers_come_late() -> None:
    """Alone a request takes 68 ms: from 340 on it is beyond the knee."""

    def answer(*, clients: int = 0, rate: float = 0.0, **_: Any) -> Outcome:
        return outcome(20.0) if clients else outcome(rate, p50=70.0, p99=350.0 if rate > 9 else 90)

    measured, server = subject(answer)
    rates = list(measured.curves(a_round(), brief=False).open)
    assert rates == pytest.approx([0.3 * 20.45, 0.5 * 20.45], rel=0.01)
    # The time that 60 requests take, or the duration of any load.
    assert [options["seconds"] for options in server.asked if "rate" in options] == [10.0, 10.0]


def test_the_sweep_goes_on_below_the_knee_and_takes_over_what_is_known() -> None:
    def answer(*, clients: int = 0, rate: float = 0.0, **_: Any) -> Outcome:
        found = outcome(20.0 if clients else rate, p50=70.0)
        return dataclasses.replace(found, waiting=(1.0, 9.0)) if rate > 17 else found

    measured, server = subject(answer)
    curves = measured.curves(a_round(), brief=False)
    assert sorted(curves.closed) == [1, 4, 16, 32]
    assert [options["clients"] for options in server.asked if "clients" in options] == [4, 32]
    # 0.9 of 20.45 is where ever more requests wait.
    assert len(curves.open) == 5


def test_a_quick_curve_measures_nothing() -> None:
    measured, server = subject(lambda **_: outcome(1.0))
    assert sorted(measured.curves(a_round(), brief=True).closed) == [1, 16]
    assert server.asked == []


def test_errors_are_faults_and_busy_clients_are_told() -> None:
    found = dataclasses.replace(outcome(5.0), errors={"503": 3}, cpu=0.95)
    measured, _ = subject(lambda **_: found)
    measured.curves(a_round(), brief=False)
    assert len(measured.note.faults) == 2  # both closed loops; an open one may be refused
    assert "503" in measured.note.faults[0]
    assert "95% of a core" in measured.note.remarks[0]


def test_no_answer_at_all_cannot_be_measured() -> None:
    measured, _ = subject(lambda **_: Outcome([], 0.0, {"500": 9}, 0.1, (0.0, 0.0)))
    with pytest.raises(BenchError, match="500"):
        measured.curves(a_round(), brief=False)
