"""Keeps the front's picture of each model's health: Ray's count of replicas, and canaries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from ray import serve
from ray.serve._private.common import ReplicaState

from deploy.ray.dispatch import Served
from deploy.ray.messages import Call
from serving.canary import IDLE_S, PICTURE
from serving.health import Health
from serving.refusals import Refused
from vision_client.rest import request_headers
from vision_client.tasks import DECODERS

logger = logging.getLogger("ray.serve")

PAUSE_S = 1.0
CANARY_TIMEOUT_S = 60.0
# The second: its node drains, and it answers until its replacement does.
_ANSWERING = (ReplicaState.RUNNING, ReplicaState.PENDING_MIGRATION)


async def count_replicas(models: Mapping[str, Served], health: Health, application: str) -> None:
    """Tell ``health`` how many replicas of each model run, until cancelled."""
    while True:
        try:
            status = await asyncio.to_thread(serve.status)
            deployments = status.applications[application].deployments
            for name in models:
                states = deployments[name].replica_states
                health.set_workers(name, sum(states.get(state, 0) for state in _ANSWERING))
        except Exception:
            logger.exception("Ray does not say how many replicas run")
        await asyncio.sleep(PAUSE_S)


async def send_canaries(served: Served, health: Health) -> None:
    """Send the cheapest request to a model without traffic, until cancelled."""
    options = DECODERS[served.task].canary
    texts = {name: str(value) for name, value in options.items()}
    headers = request_headers(texts, CANARY_TIMEOUT_S)
    while True:
        if health.needs_canary(served.name, IDLE_S):
            try:
                reply = await served.answer(
                    Call(headers, PICTURE, {}, "canary"), CANARY_TIMEOUT_S, health.down_for
                )
            except Refused as refusal:
                # A busy model is not a dead one.
                if refusal.type != "Overloaded":
                    health.failed(served.name, f"its canary was answered {refusal.code}")
            except Exception:  # of the replica; the canaries go on
                logger.exception("the canary of %s failed because of a bug", served.name)
                health.failed(served.name, "its canary failed: the log of the front says why")
            else:
                if reply.code == 200:
                    health.succeeded(served.name, reply.weights)
                else:
                    health.failed(served.name, f"its canary was answered {reply.code}")
        await asyncio.sleep(PAUSE_S)
