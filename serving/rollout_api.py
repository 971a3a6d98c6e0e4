"""Rollouts and rollbacks, as the supervisor offers them at its private socket.

An answer is a line of JSON after another while the command works: ``{"progress": TEXT}`` for a
step, and at the end ``{"done": TEXT}`` or ``{"error": TEXT}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from serving.errors import ServingError
from serving.health import Health
from serving.loading import Progress
from serving.rollout import Rollouts

# An empty line this often shows whether the client is still there.
_BEAT_S = 1.0
NO_GATEWAY = (
    "without the gateway (GATEWAY=0) there is no rollout, because the gateway chooses the version "
    "of a request: start the server with it, or replace the archive in the model store and start "
    "again"
)
BUG = (
    "it failed because of a bug: the server's output has the traceback, and `make status` shows "
    "which versions are loaded"
)


class RolloutApi:
    """The routes; ``rollouts`` is None without a gateway, which chooses a request's version."""

    def __init__(self, rollouts: Rollouts | None, health: Health) -> None:
        self._rollouts = rollouts
        self._health = health

    @property
    def routes(self) -> list[web.RouteDef]:
        return [web.post("/rollout", self._roll_out), web.post("/rollback", self._roll_back)]

    async def _roll_out(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        archive = Path(asked["archive"]) if asked["archive"] else None
        return await self._run(
            request, lambda r, p: r.roll_out(asked["model"], archive, asked["share"], p)
        )

    async def _roll_back(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        return await self._run(request, lambda r, p: r.roll_back(asked["model"], p))

    async def _run(
        self, request: web.Request, command: Callable[[Rollouts, Progress], str]
    ) -> web.StreamResponse:
        """Run ``command`` in a thread, and pass on what it says until it has ended."""
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        is_gone = False

        def check() -> None:
            if is_gone:
                raise ServingError("the command was interrupted")
            if self._health.draining:
                raise ServingError("the server is about to end")

        def put(line: dict[str, str]) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        def work() -> None:
            try:
                if self._rollouts is None:
                    raise ServingError(NO_GATEWAY)
                progress = Progress(lambda text: put({"progress": text}), check)
                put({"done": command(self._rollouts, progress)})
            except ServingError as error:
                put({"error": f"nothing has changed: {error}"})
            except Exception:
                put({"error": BUG})
                raise

        working = asyncio.create_task(asyncio.to_thread(work))
        line: dict[str, str] | None = None
        while line is None or "progress" in line:
            line = None
            with contextlib.suppress(TimeoutError):
                line = await asyncio.wait_for(lines.get(), _BEAT_S)
            try:
                await response.write((json.dumps(line) if line else "").encode() + b"\n")
            except ConnectionError:
                is_gone = True
        await working
        return response
