"""When a model is ready, and what is said about it."""

from __future__ import annotations

import pytest

from serving.health import FRESH_S, Health

IDLE_S = 5.0


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    """Of a model that is ready, and of one with two workers that has not started."""
    health = Health({"a": 1, "b": 2}, clock)
    health.set_workers("a", 1)
    health.succeeded("a", "published")
    return health


def test_a_model_is_ready_with_its_workers_and_an_answer(health: Health) -> None:
    assert health.report_model("a") == {
        "ready": True,
        "workers": 1,
        "wanted": 1,
        "answered_s_ago": 0.0,
        "reason": None,
    }
    assert health.weights("a") == "published"
    health.set_workers("b", 1)
    health.succeeded("b")
    assert health.report_model("b")["reason"] == "1 of 2 workers are ready"
    assert (health.report()["ready"], health.ready) == (False, False)
    health.set_workers("b", 2)
    assert (health.report()["ready"], health.ready) == (True, True)
    health.set_workers("a", 0)
    assert (health.report()["ready"], health.ready) == (False, False)


def test_workers_alone_are_not_enough(health: Health) -> None:
    health.set_workers("b", 2)
    assert health.report_model("b")["reason"] == "no request was answered yet"


def test_an_answer_grows_old(health: Health, clock: Clock) -> None:
    clock.now += FRESH_S
    assert health.is_ready("a")
    clock.now += 1
    assert health.report_model("a")["reason"] == "no answer for 16 s"
    assert health.report_model("a")["answered_s_ago"] == 16.0


def test_a_long_batch_is_no_failure(health: Health, clock: Clock) -> None:
    clock.now += 60
    health.worked("a")
    assert health.is_ready("a")


def test_a_failed_canary_counts_until_an_answer(health: Health) -> None:
    health.failed("a", "its canary was answered 500")
    health.worked("a")
    assert health.report_model("a")["reason"] == "its canary was answered 500"
    assert health.needs_canary("a", IDLE_S)
    health.succeeded("a")
    assert health.is_ready("a")


def test_only_idle_models_with_workers_are_asked(health: Health, clock: Clock) -> None:
    assert not health.needs_canary("a", IDLE_S), "it has just answered"
    assert not health.needs_canary("b", IDLE_S), "it has no worker"
    clock.now += IDLE_S
    assert health.needs_canary("a", IDLE_S)
    health.set_workers("b", 1)
    assert health.needs_canary("b", IDLE_S)


def test_without_torchserve_nothing_is_ready(health: Health, clock: Clock) -> None:
    assert health.down_for("a") == 0.0
    health.lose("TorchServe is started again")
    clock.now += 2
    health.lose("TorchServe is started again")
    assert health.report_model("a")["reason"] == "TorchServe is started again"
    assert health.down_for("a") == 2.0
    health.set_workers("a", 1)
    assert health.down_for("a") == 0.0
    assert not health.is_ready("a"), "it has not answered since"


def test_draining(health: Health) -> None:
    health.draining = True
    assert health.report() == {"ready": False, "reason": "draining"}
    assert health.report_model("a")["reason"] == "draining"
    assert not health.ready


def test_answers_of_unknown_models_are_ignored(health: Health) -> None:
    health.succeeded("c")
    assert health.models == ["a", "b"]
