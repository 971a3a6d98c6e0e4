"""Measures clients that take more than their share of the queue, of connections or of memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence

from serving.errors import ServingError
from serving.sockets import client
from tools.bench.load import Sample
from tools.bench.report import goal
from tools.gateway.common import Served, errors, latency, load, mib, served

GREEDY, GREEDY_ADDRESS = 64, "127.0.0.2"
# The goal: the largest ratio of the polite client's p95 beside the greedy one to its p95 alone.
BAR = 3.0
FILL_S = 3.0  # until the greedy client has filled its share of the queue
SAMPLES = {"classify": 120, "translate": 40}
WARM_UP, LIMIT_S = 10, 150.0

IDLE, IDLE_SAMPLES = 10_000, 60
PER_ADDRESS = 5_000  # connections per source address, far fewer than it has ports
SETTLE_S = 3.0

STALLED, BYTES = 200, 16 * 2**20
UPLOAD_S = 20  # upload_seconds of the server

# How an upload ended (the HTTP status or the fate of its connection), and after how many seconds.
Ending = tuple[str, float]


async def fair(device: str, scale: float) -> AsyncIterator[str]:
    """Latency of a polite client, alone and beside a greedy one with 64 connections."""
    with served(device) as server:
        for model, task in server.models.items():
            count = round(scale * SAMPLES[task.name])
            logging.info("%s: %d requests alone, then beside the greedy client", model, count)
            await server.polite(model, WARM_UP, LIMIT_S)
            alone = await server.polite(model, count, LIMIT_S)
            async with load(server, model, GREEDY, GREEDY_ADDRESS, obeys=True) as greedy:
                await asyncio.sleep(FILL_S)
                greedy.clear()
                beside = await server.polite(model, count, LIMIT_S)
                meanwhile = list(greedy)
            for line in contest(model, alone, beside, meanwhile):
                yield line


def contest(
    model: str, alone: Sequence[Sample], beside: Sequence[Sample], greedy: Sequence[Sample]
) -> Iterator[str]:
    """The polite client's latencies, both throughputs while they compete, and the goal."""
    seconds = beside[-1].done - beside[0].due
    for name, samples in (("alone", alone), ("beside", beside)):
        p50, p95 = (latency(samples, percent) for percent in (50, 95))
        yield (
            f"{model}, polite client {name}: {len(samples)} requests, p50 {p50:.1f} ms, "
            f"p95 {p95:.1f} ms {errors(samples)}"
        )
    mine, other = (sum(not s.error for s in each) / seconds for each in (beside, greedy))
    yield f"{model}, answers/s: polite {mine:.2f}, greedy {other:.2f}, both {mine + other:.2f}"
    yield f"{model}, greedy client's errors: {errors(greedy) or 'none'}"
    ratio = latency(beside, 95) / latency(alone, 95)
    yield goal(f"{model}, polite client: p95 beside over alone", ratio, "<=", BAR)


async def idle(device: str, scale: float) -> AsyncIterator[str]:
    """Memory of Envoy and latency of a client while 10,000 connections send nothing."""
    wanted = round(scale * IDLE)
    _allow_files(wanted + 200)
    with served(device) as server, contextlib.ExitStack() as connections:

        async def line(name: str) -> str:
            active, memory = _active(server), mib(server.process("envoy"))
            asked = await server.polite(server.classifier, round(scale * IDLE_SAMPLES), LIMIT_S)
            p50 = latency(asked, 50)
            return f"{name:<12}{active:>12}{memory:>12.1f}{p50:>12.1f} {errors(asked)}"

        await server.polite(server.classifier, WARM_UP, LIMIT_S)
        yield f"{'':<12}{'connections':>12}{'Envoy, MiB':>12}{'lone p50 ms':>12}"
        yield await line("before")
        logging.info("%d connections", wanted)
        address = server.config.addresses["inference_address"]
        for number in range(wanted):
            source = f"127.0.0.{2 + number // PER_ADDRESS}", 0
            connections.enter_context(socket.create_connection(address, LIMIT_S, source))
        await asyncio.sleep(SETTLE_S)
        yield await line("with them")
        connections.close()
        await asyncio.sleep(SETTLE_S)
        yield await line("after")


def _active(server: Served) -> int:
    """The connections that the gateway has accepted and not closed."""
    name = "http.public.downstream_cx_active"
    with client(server.run.sockets.admin) as admin:
        text = admin.get(f"/stats?filter=^{name}$").raise_for_status().text
    return int(text.partition(":")[2])


def _allow_files(count: int) -> None:
    """Raise this process's limit of open files. ServingError if the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise ServingError(f"the measurement opens {count} files, and `ulimit -Hn` is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


async def stalled(device: str, scale: float) -> AsyncIterator[str]:
    """Memory, and the requests of a polite client, during 200 uploads that lack their last byte."""
    with served(device, upload_seconds=str(UPLOAD_S)) as server:
        host, port = server.config.addresses["inference_address"]
        head = f"POST /predictions/{server.classifier} HTTP/1.1\r\nhost: {host}\r\n"
        data = memoryview(f"{head}content-length: {BYTES}\r\n\r\n".encode() + bytes(BYTES - 1))
        await server.polite(server.classifier, WARM_UP, LIMIT_S)
        sizes = [_sizes(server)]
        logging.info("%d uploads beside a polite client", round(scale * STALLED))
        uploads = asyncio.gather(
            *(_stall((host, port), data) for _ in range(round(scale * STALLED)))
        )
        async with load(server, server.classifier, 1, "127.0.0.1", obeys=True) as polite:
            while not uploads.done():
                sizes.append(_sizes(server))
                await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLE_S)
        yield f"{'MiB':<8}{'before':>8}{'peak':>8}{'after':>8}"
        for name, before in sizes[0].items():
            peak, after = max(size[name] for size in sizes), _sizes(server)[name]
            yield f"{name:<8}{before:>8.0f}{peak:>8.0f}{after:>8.0f}"
        for line in endings(await uploads):
            yield line
        yield (
            f"{sum(not s.error for s in polite)} of {len(polite)} requests of a polite client were "
            f"answered, p50 {latency(polite, 50):.0f} ms, longest {latency(polite, 100):.0f} ms "
            f"{errors(polite)}"
        )


def _sizes(server: Served) -> dict[str, float]:
    return {name: mib(server.process(name)) for name in ("envoy", "java")}


async def _stall(address: tuple[str, int], data: memoryview) -> Ending:
    """Send ``data`` and wait until the server answers or closes the connection."""
    loop, begun = asyncio.get_running_loop(), time.monotonic()
    with socket.socket() as connection:  # asyncio's streams would copy the data
        connection.setblocking(False)
        try:
            async with asyncio.timeout(3 * UPLOAD_S):
                await loop.sock_connect(connection, address)
                await loop.sock_sendall(connection, data)
                answer = await loop.sock_recv(connection, 4096)
            ending = answer.split(b" ", 2)[1].decode() if answer else "closed connection"
        except TimeoutError:
            ending = "nothing"
        except OSError as error:
            ending = type(error).__name__
    return ending, time.monotonic() - begun


def endings(uploads: Sequence[Ending]) -> Iterator[str]:
    """How many uploads ended in each way, and after how many seconds."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for how, seconds in uploads:
        times[how].append(seconds)
    for how, each in sorted(times.items()):
        yield f"{len(each)} uploads ended with {how}, after {min(each):.1f} to {max(each):.1f} s"
