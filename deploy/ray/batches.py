"""Batches of requests, one computed at a time: those that wait meanwhile form the next one.

Ray's ``@serve.batch`` closes a batch before the one in front of it has ended, so that under load
most batches have one or two requests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from deploy.ray.messages import Call, Reply


class Batches:
    """``compute`` answers at most ``size`` calls at once, in a thread of its own.

    A lone call waits ``delay_s`` seconds for others. Use it from one event loop.
    """

    def __init__(
        self, compute: Callable[[Sequence[Call]], Sequence[Reply]], size: int, delay_s: float
    ) -> None:
        self._compute = compute
        self._size = size
        self._delay_s = delay_s
        self._thread = ThreadPoolExecutor(1, "network")
        self._waiting: deque[tuple[Call, asyncio.Future[Reply]]] = deque()
        self._work: asyncio.Task[None] | None = None

    async def answer(self, call: Call) -> Reply:
        """The reply to ``call``. An exception of ``compute`` is that of each call of its batch."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_waiting())
        return await future

    async def _answer_waiting(self) -> None:
        while self._waiting:
            if len(self._waiting) < self._size:
                await asyncio.sleep(self._delay_s)
            batch = self._next()
            if not batch:
                continue
            loop = asyncio.get_running_loop()
            calls = [call for call, _ in batch]
            try:
                replies = await loop.run_in_executor(self._thread, self._compute, calls)
            except Exception as error:  # noqa: BLE001 - the callers get it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), reply in zip(batch, replies, strict=True):
                if not future.done():
                    future.set_result(reply)

    def _next(self) -> list[tuple[Call, asyncio.Future[Reply]]]:
        """The first calls that somebody still waits for."""
        batch: list[tuple[Call, asyncio.Future[Reply]]] = []
        while self._waiting and len(batch) < self._size:
            call, future = self._waiting.popleft()
            if not future.done():  # the client has left
                batch.append((call, future))
        return batch
