"""The queue at the gateway while a worker is held: bounds, deadlines, clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import aiohttp
import grpc
import psutil
import pytest
import requests

from serving.archives import read_archives
from serving.gateway.admission import Capacity
from serving.gateway.process import capacity
from serving.machine import inspect
from serving.plan import Options, plan
from tests.routes import post, prediction
from tests.running import Running, wait_until
from tests.served import held
from tests.serving.gateway.logs import access

pytestmark = pytest.mark.slow

MODEL = "resnet101"
TIMEOUT_S = 60


def bounds_of(server: Running) -> Capacity:
    """The numbers of requests that the gateway lets through and keeps for MODEL."""
    planned = plan(
        server.config, read_archives(server.config), inspect("cpu"), Options(device="cpu"), {}
    )
    [found] = [model for model in planned.models if model.model == MODEL]
    return capacity(found, planned.machine.gpus)


def new_id() -> str:
    return uuid.uuid4().hex


def test_a_deadline_that_passes_in_the_queue_costs_no_inference(
    server: Running, jpeg: bytes
) -> None:
    expired, after = new_id(), new_id()
    with held(server, MODEL), _filled(server):
        response = post(
            server, MODEL, data=jpeg, headers={"x-timeout-ms": "300", "x-request-id": expired}
        )
        assert response.status_code == 504
        assert response.json()["type"] == "DeadlineExceeded"
    assert post(server, MODEL, data=jpeg, headers={"x-request-id": after}).status_code == 200
    wait_until(lambda: f"{after} ok" in server.log())
    assert expired not in server.log()


def test_a_grpc_deadline_that_passes_in_the_queue_costs_no_inference(
    server: Running, jpeg: bytes
) -> None:
    expired, after = new_id(), new_id()
    with held(server, MODEL), _filled(server):
        with pytest.raises(grpc.RpcError) as caught:
            server.grpc.Predictions(
                prediction(MODEL, data=jpeg), timeout=0.5, metadata=[("x-request-id", expired)]
            )
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert post(server, MODEL, data=jpeg, headers={"x-request-id": after}).status_code == 200
    wait_until(lambda: f"{after} ok" in server.log())
    assert expired not in server.log()


def test_a_client_that_leaves_the_queue_costs_no_inference(server: Running, jpeg: bytes) -> None:
    left, after = new_id(), new_id()
    address = urlsplit(server.config.inference)
    head = (
        f"POST /predictions/{MODEL} HTTP/1.1\r\nhost: h\r\nx-request-id: {left}\r\n"
        f"content-length: {len(jpeg)}\r\n\r\n"
    )
    place = (address.hostname, address.port)
    with (
        held(server, MODEL),
        _filled(server),
        socket.create_connection(place, TIMEOUT_S) as connection,
    ):
        connection.sendall(head.encode() + jpeg)
        time.sleep(0.5)  # it has joined the queue
    assert access(server, left)["status"] == 0
    assert post(server, MODEL, data=jpeg, headers={"x-request-id": after}).status_code == 200
    wait_until(lambda: f"{after} ok" in server.log())
    assert left not in server.log()


def test_a_deadline_ends_a_request_in_work(server: Running, jpeg: bytes) -> None:
    with held(server, MODEL):
        response = post(server, MODEL, data=jpeg, headers={"x-timeout-ms": "300"})
    assert response.status_code == 504


def test_no_client_fills_the_queue(server: Running, jpeg: bytes) -> None:
    """One client is refused with 429 while another is let in; then the queue is full for all."""
    bounds = bounds_of(server)
    many = bounds.slots + bounds.per_client + 5

    async def ask(session: aiohttp.ClientSession) -> tuple[int, str | None]:
        async with session.post(server.url(MODEL), data=b"no picture") as response:
            await response.read()
            return response.status, response.headers.get("retry-after")

    async def everyone() -> tuple[list[tuple[int, str | None]], list[tuple[int, str | None]]]:
        timeout = aiohttp.ClientTimeout(TIMEOUT_S)
        async with contextlib.AsyncExitStack() as stack:
            sessions = [
                await stack.enter_async_context(
                    aiohttp.ClientSession(
                        connector=aiohttp.TCPConnector(limit=0, local_addr=(host, 0)),
                        timeout=timeout,
                    )
                )
                for host in ("127.0.0.1", "127.0.0.2")
            ]
            with held(server, MODEL):
                first = [asyncio.create_task(ask(sessions[0])) for _ in range(many)]
                await asyncio.sleep(1.5)
                second = [asyncio.create_task(ask(sessions[1])) for _ in range(many)]
                await asyncio.sleep(1.5)
            return await asyncio.gather(*first), await asyncio.gather(*second)

    first, second = asyncio.run(everyone())
    refused = [retry for status, retry in first if status == 429]
    assert len(refused) == 5
    assert all(retry is not None and int(retry) >= 1 for retry in refused)
    statuses = [status for status, _ in second]
    assert statuses.count(400) == bounds.waiting - bounds.per_client
    assert set(statuses) == {400, 503}
    assert all(retry is not None for status, retry in second if status == 503)


@contextlib.contextmanager
def _filled(server: Running) -> Iterator[None]:
    """Fill the slots of the model, so that this client's next request waits at the gateway."""
    bounds = bounds_of(server)

    async def ask(session: aiohttp.ClientSession) -> int:
        async with session.post(server.url(MODEL), data=b"no picture") as response:
            return response.status

    async def fill() -> list[int]:
        connector = aiohttp.TCPConnector(limit=0, local_addr=("127.0.0.1", 0))
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.gather(*(ask(session) for _ in range(bounds.slots)))

    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.extend(asyncio.run(fill())))
    thread.start()
    time.sleep(0.7)
    try:
        yield
    finally:
        [worker] = [psutil.Process(w.pid) for w in server.management.workers(MODEL)]
        worker.resume()
        thread.join(TIMEOUT_S)
    assert set(statuses) == {400}


def test_a_killed_worker_costs_no_answer(server: Running, jpeg: bytes) -> None:
    """What it had is sent again, to its successor."""
    [worker] = server.management.workers(MODEL)
    session = requests.Session()
    chosen = new_id()
    with held(server, MODEL), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(
            session.post,
            server.url(MODEL),
            data=jpeg,
            headers={"x-request-id": chosen},
            timeout=TIMEOUT_S,
        )
        time.sleep(0.5)
        psutil.Process(worker.pid).kill()
        assert answer.result().status_code == 200
