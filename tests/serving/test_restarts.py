"""Processes that end are started again, and given up after five restarts within ten minutes."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter

from serving.actions import Action, Actions
from serving.errors import ServingError
from serving.restarts import PAUSES_S, WINDOW_S, Restarts


class Fragile:
    """A process that ends when the test says so."""

    def __init__(self) -> None:
        self.starts = 0
        self.status: int | None = None
        self.fault: str | None = None

    def start(self) -> None:
        if self.fault:
            raise ServingError(self.fault)
        self.starts += 1
        self.status = None

    def ended(self) -> int | None:
        return self.status


class Case:
    """Restarts of a process, with a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.process = Fragile()
        self.registry = CollectorRegistry()
        actions = Counter("actions", "", ["action", "model"], registry=self.registry)
        self.restarts = Restarts(
            self.process, "it", "its.log", Actions(actions), Action.RESTART_TORCHSERVE,
            lambda: self.now,
        )  # fmt: skip

    def fail(self, pause: float) -> None:
        """The process ends, and is started again after ``pause``."""
        starts = self.process.starts
        self.process.status = 3
        assert not self.restarts.poll()
        self.now += pause - 0.1
        assert not self.restarts.poll()
        assert self.process.starts == starts
        self.now += 0.1
        assert self.restarts.poll()
        assert self.process.starts == starts + 1


@pytest.fixture
def case() -> Case:
    return Case()


def test_a_process_that_runs_is_left_alone(case: Case) -> None:
    assert case.restarts.poll()
    assert case.process.starts == 0


def test_pauses_grow_until_it_is_given_up(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    for pause in PAUSES_S:
        case.fail(pause)
    case.process.status = 3
    with pytest.raises(ServingError, match=r"it ended with status 3, after 5 restarts .* its.log"):
        case.restarts.poll()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        f"it ended with status 3: it is started again in {pause} s" for pause in PAUSES_S
    ]
    labels = {"action": "restart_torchserve", "model": ""}
    assert case.registry.get_sample_value("actions_total", labels) == 5


def test_old_failures_are_forgotten(case: Case) -> None:
    for _ in range(3):
        for pause in PAUSES_S[:2]:
            case.fail(pause)
        case.now += WINDOW_S


def test_a_start_that_fails_counts(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.process.status = 1
    assert not case.restarts.poll()
    case.process.fault = "no such file"
    case.now += 1
    assert not case.restarts.poll()
    assert "it did not start (no such file): it is started again in 2 s" in capsys.readouterr().out
    case.process.fault = None
    case.now += 2
    assert case.restarts.poll()


def test_a_process_is_replaced(case: Case) -> None:
    killed: list[bool] = []
    case.restarts.replace(lambda: killed.append(True), "is deaf")
    assert killed == [True]
    case.now += 1
    assert case.restarts.poll()
    assert case.process.starts == 1
