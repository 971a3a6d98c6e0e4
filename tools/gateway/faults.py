"""Kills or stops processes of a server under load, and counts the requests that clients lose."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence

import aiohttp
import psutil

from tools.bench.load import Sample
from tools.gateway.common import BACK_S, Served, connect, errors, load, served

CLIENTS = 4
LOAD_S = 3.0  # of load before the fault
# The server counts as ready again after this time without a fault.
SETTLE_S = 5.0
LIMIT_S = 120.0


async def faults(device: str, _scale: float) -> AsyncIterator[str]:
    """Time until ready again, and lost requests, for each process that is killed or stopped."""
    columns = ("ready after", "answered", "lost", "longest wait")
    yield f"{'':<18}" + "".join(f"{column:>14}" for column in columns)
    kill, stop = psutil.Process.kill, psutil.Process.suspend
    with served(device) as server:
        for name, act in (("worker", kill), ("worker", stop), ("java", kill), ("envoy", kill)):
            title = f"{name}, {'SIGKILL' if act is kill else 'SIGSTOP'}"
            logging.info("%s", title)
            if name == "worker":
                victim = psutil.Process(server.management.workers(server.classifier)[0].pid)
            else:
                victim = server.process(name)
            yield report(title, *await _watch(server, victim, act))
    yield f"{CLIENTS} clients, which repeat no request and pause {BACK_S} s after an error"


async def _watch(
    server: Served, victim: psutil.Process, act: Callable[[psutil.Process], None]
) -> tuple[float, float | None, list[Sample]]:
    """The time of the fault, the time when the server was ready again or None, and all samples."""
    ready, gone, unready = None, math.inf, 0.0
    async with (
        load(server, server.classifier, CLIENTS, "127.0.0.1", obeys=False) as samples,
        connect() as session,
    ):
        await asyncio.sleep(LOAD_S)
        harmed = time.monotonic()
        act(victim)
        while ready is None and time.monotonic() < harmed + LIMIT_S:
            if not await _is_ready(server, session):
                unready = time.monotonic()
            if gone == math.inf and not _lives(victim):
                gone = time.monotonic()
            ready = ready_at(gone, unready, samples, time.monotonic())
            await asyncio.sleep(0.1)
    return harmed, ready, samples


def ready_at(gone: float, unready: float, samples: Sequence[Sample], now: float) -> float | None:
    """When the server was ready again, or None as long as that is not certain.

    ``gone`` is when the harmed process ended, ``unready`` when /readyz last failed. The server is
    ready when a request that began after ``gone`` and after the last error has been answered;
    this is certain SETTLE_S later.
    """
    failed = max((sample.done for sample in samples if sample.error), default=0.0)
    answered = [sample.done for sample in samples if sample.due >= max(gone, failed)]
    ready = max(min(answered, default=math.inf), unready)
    return ready if now - ready >= SETTLE_S else None


async def _is_ready(server: Served, session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get(f"{server.config.metrics}/readyz") as response:
            return response.ok
    except aiohttp.ClientError:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def report(title: str, harmed: float, ready: float | None, samples: Sequence[Sample]) -> str:
    """A line of the table; only requests that ended after the fault count."""
    counted = [sample for sample in samples if sample.done >= harmed]
    lost = sum(bool(sample.error) for sample in counted)
    after = "never" if ready is None else f"{ready - harmed:.1f} s"
    longest = max((sample.done - sample.due for sample in counted), default=0.0)
    cells = (after, len(counted) - lost, lost, f"{longest:.1f} s")
    return f"{title:<18}" + "".join(f"{cell:>14}" for cell in cells) + f"  {errors(counted)}"
