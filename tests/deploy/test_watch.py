"""What the front knows of the models' replicas."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
from ray import serve
from ray.serve._private.common import ReplicaState

from deploy.ray import watch
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
