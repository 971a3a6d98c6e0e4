"""`make ray-serve`: its logs, and its end."""

from __future__ import annotations

import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from tests.routes import ROUTES, Client, Server, post
from tests.running import wait_until
from tests.served import Ray, held

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("served", ["ray"], indirect=True),
]

MODEL = "resnet101"


@pytest.fixture
def ray(served: Server) -> Ray:
    """The tests below share it, and the last one ends it."""
    assert isinstance(served, Ray)
    return served


def test_the_logs_that_it_names_are_its_own(ray: Ray) -> None:
    """Ray's own link leads to those of the latest server of the machine."""
    assert ray.logs.parents[1].name.endswith(f"_{ray.process.pid}")


def test_no_log_has_content(ray: Ray) -> None:
    marker = uuid.uuid4().hex
    asked: list[tuple[dict[str, Any], int]] = [
        ({"data": marker}, 400),
        ({"data": f"\xff\xd8\xff{marker}".encode("latin-1")}, 400),
        ({"data": f"--b\r\n{marker}", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"files": {marker: marker}}, 400),
        ({"json": {"data": marker, marker: marker}}, 400),
    ]
    for request, status in asked:
        assert post(ray, MODEL, **request).status_code == status
    assert post(ray, f"{MODEL}?{marker}", data=b"x").status_code == 400
    client = Client(ray.rest, ray.grpc_address)
    assert ROUTES["grpc"](client, MODEL, marker.encode()).code == 400
    client.close()
    last = post(ray, MODEL, data=b"x").headers["x-request-id"]
    wait_until(lambda: last in ray.log())
    logs = [path for path in ray.logs.parent.rglob("*") if path.is_file()]
    assert [path.name for path in logs if marker.encode() in path.read_bytes()] == []


def test_accepted_requests_are_answered_before_the_end(ray: Ray, jpeg: bytes) -> None:
    clients = 12
    processes = psutil.Process(ray.process.pid).children(recursive=True)
    with ThreadPoolExecutor(clients) as pool:
        with held(ray, MODEL):
            answers = [pool.submit(post, ray, MODEL, data=jpeg) for _ in range(clients)]
            time.sleep(2)  # they have arrived
            ray.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "finishing accepted requests" in ray.said())
        assert [answer.result().status_code for answer in answers] == [200] * clients
    assert ray.process.wait(60) == 0
    _, left = psutil.wait_procs(processes, timeout=30)
    assert left == []
