"""Sends the cheapest request to each model without traffic, directly to TorchServe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from serving.health import Health
from serving.plan import ModelPlan, Plan
from serving.runfolder import RunFolder
from serving.sockets import Sockets, Token
from vision_client.answers import Reply
from vision_client.errors import VisionError
from vision_client.rest import request_headers
from vision_client.tasks import DECODERS

# A model that has answered within this time gets no canary, so a loaded server runs none.
IDLE_S = 5.0
PAUSE_S = 0.5
TIMEOUT_S = 60.0
QUEUE_FULL = 503

# A gray PNG of 64x64 pixels.
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000400000004008000000008f022e020000002b49444154"
    "78daedcc311100000804a0d7e44637849b0701a8c94d4720100804028140201008040281c1f3600140"
    "740100aca9a5640000000049454e44ae426082"
)


class Canary:
    """A client of TorchServe's inference API."""

    def __init__(self, plan: Plan, run: RunFolder, sockets: Sockets) -> None:
        uds = str(sockets.inference) if plan.gateway else None
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=uds),
            base_url="http://localhost" if plan.gateway else plan.config.local_inference,
            auth=Token(lambda: run.token("inference")),
            timeout=TIMEOUT_S,
        )

    async def watch(self, planned: ModelPlan, health: Health) -> None:
        """Report the canaries of one version to ``health`` until cancelled."""
        key = planned.key
        while True:
            if health.needs_canary(key, IDLE_S):
                with _reported(key, health):
                    weights = await self.ask(key, planned.archive.task)
                    if weights is not None:
                        health.succeeded(key, weights)
            await asyncio.sleep(PAUSE_S)

    async def ask(self, key: str, task: str) -> str | None:
        """The name of the weights that answered.

        None if TorchServe's queue is full, because a busy model is not a dead one. Raises
        httpx.HTTPError or VisionError if there is no correct answer.
        """
        started = time.monotonic()
        decoder = DECODERS[task]
        options = {name: str(value) for name, value in decoder.canary.items()}
        response = await self._http.post(
            f"/predictions/{key}", content=PICTURE, headers=request_headers(options, TIMEOUT_S)
        )
        if response.status_code == QUEUE_FULL:
            return None
        response.raise_for_status()
        headers = response.headers
        reply = Reply(response.content, headers.get("x-model-weights"), headers.get("x-request-id"))
        return decoder.decode(reply, time.monotonic() - started).weights or ""

    async def close(self) -> None:
        await self._http.aclose()


@contextmanager
def _reported(key: str, health: Health) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        health.failed(key, f"its canary was answered {error.response.status_code}")
    except httpx.TimeoutException:
        health.failed(key, f"its canary was not answered within {TIMEOUT_S:.0f} s")
    except httpx.HTTPError as error:
        health.failed(key, f"no connection to TorchServe: {error}")
    except VisionError as error:
        health.failed(key, f"its canary was answered wrongly: {error}")
