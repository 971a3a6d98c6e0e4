"""Sends a call to a replica of its model, and turns what goes wrong into errors of the contract."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from grpc.aio import AioRpcError
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from deploy.ray.messages import Call, Reply
from serving.gateway.admission import DOWN_S
from serving.refusals import Refused, deadline_exceeded, no_worker, queue_full

logger = logging.getLogger("ray.serve")

# A replica that dies takes its requests with it: each is sent to another one, once.
ATTEMPTS = 2
# What Ray raises then; the latter if the connection to the replica broke in another way.
DIED = (RayActorError, AioRpcError)
POLL_S = 1.0
_SMOOTHING = 0.1


@dataclass
class Served:
    """A model as the front knows it; ``options`` are the whole numbers that a request may choose.

    ``longest`` is how long a request may take, in seconds, ``replicas`` the least number of
    replicas. ``open`` counts the requests that are not answered yet; ``mean_s`` is the mean time of
    an answer lately, in seconds.
    """

    name: str
    task: str
    options: dict[str, dict[str, int]]
    version: str
    longest: float
    replicas: int
    handle: DeploymentHandle[Any]
    open: int = 0
    mean_s: float = field(default=0.1)

    async def answer(
        self, call: Call, timeout: float | None, down_for: Callable[[str], float]
    ) -> Reply:
        """The reply of a replica within ``timeout`` seconds; Refused if there is none."""
        started = time.monotonic()
        deadline = started + min(self.longest, timeout or self.longest)
        self.open += 1
        try:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    reply = await self._ask(call, deadline, down_for)
                except DIED:
                    if attempt == ATTEMPTS:
                        raise
                    logger.warning("a replica of %s ended: sending %s again", self.name, call.id)
                else:
                    self.mean_s += _SMOOTHING * (time.monotonic() - started - self.mean_s)
                    return reply
            raise AssertionError
        except BackPressureError:
            raise queue_full(self._retry_after()) from None
        except DeploymentUnavailableError:
            raise no_worker(self.name) from None
        except DIED:
            raise Refused(
                507, "WorkerDied", "the worker ended while it had this request: try once more"
            ) from None
        finally:
            self.open -= 1

    async def _ask(self, call: Call, deadline: float, down_for: Callable[[str], float]) -> Reply:
        response = self.handle.remote(call)
        waiting: asyncio.Future[Any] = asyncio.ensure_future(_result(response))
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise deadline_exceeded()
                await asyncio.wait([waiting], timeout=min(left, POLL_S))
                if waiting.done():
                    reply: Reply = waiting.result()
                    return reply
                if down_for(self.name) > DOWN_S:
                    raise no_worker(self.name)
        finally:
            if not waiting.done():  # out of time, or the client has left
                waiting.cancel()
                response.cancel()  # type: ignore[no-untyped-call]

    def _retry_after(self) -> int:
        """The time in which a request is answered now, in seconds from 1 to 60."""
        return round(min(max(self.mean_s, 1), 60))


async def _result(response: Any) -> Any:
    return await response
