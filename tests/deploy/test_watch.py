"""What the front knows of the models' replicas."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from ray.serve._private.common import ReplicaState

from deploy.ray import watch
from deploy.ray.messages import Reply
from serving.health import Health


@pytest.mark.parametrize(
    ("states", "answers"),
    [
        # Its node drains, and its replacement loads the network.
        ({ReplicaState.PENDING_MIGRATION: 1, ReplicaState.STARTING: 1}, True),
        ({ReplicaState.STOPPING: 1, ReplicaState.STARTING: 1}, False),
    ],
)
def test_a_model_is_up_while_a_replica_answers(
    monkeypatch: pytest.MonkeyPatch, states: dict[ReplicaState, int], answers: bool
) -> None:
    deployments = {"net": SimpleNamespace(replica_states=states)}
    status = SimpleNamespace(applications={"vision": SimpleNamespace(deployments=deployments)})
    looks = iter([status])

    def look() -> SimpleNamespace:
        with contextlib.suppress(StopIteration):
            return next(looks)
        raise asyncio.CancelledError

    monkeypatch.setattr(serve, "status", look)
    monkeypatch.setattr(watch, "PAUSE_S", 0)
    health = Health({"net": 1})
    health.set_workers("net", 0 if answers else 1)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(watch.count_replicas({"net": None}, health, "vision"))  # type: ignore[dict-item]
    assert (health.down_for("net") == 0) is answers


def test_a_canary_that_fails_because_of_a_bug_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "PAUSE_S", 0)
    health = Health({"net": 1})
    health.set_workers("net", 1)
    outcomes: list[Reply | BaseException] = [
        ZeroDivisionError("bug"), Reply(200, "", b"", weights="w"),
    ]  # fmt: skip
    failures = []

    async def answer(*_: object) -> Reply:
        if not outcomes:
            raise asyncio.CancelledError
        outcome = outcomes.pop(0)
        failures.append(health.report_model("net")["reason"])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(Health, "needs_canary", lambda *_: True)
    served: Any = SimpleNamespace(name="net", task="classify", answer=answer)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(watch.send_canaries(served, health))
    assert failures[1].startswith("its canary failed")
    assert (health.report_model("net")["ready"], health.weights("net")) == (True, "w")
    assert "ZeroDivisionError: bug" in caplog.text
