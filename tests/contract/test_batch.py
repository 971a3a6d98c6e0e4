"""Requests that meet in one batch, or find a full queue: each is answered as if it were alone.

``tests/handlers/test_isolation.py`` tests the handlers with every kind of error and option.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.routes import ROUTES, Client, Reply, Server, post
from tests.running import wait_until
from tests.served import held

ATTEMPTS = 5
PICTURES, BAD = 8, 3  # how many at once; the position of the damaged one
QUEUE = 40  # more requests than cyclegan's queue holds


@pytest.fixture
def client(served: Server) -> Iterator[Client]:
    routes = Client(served.rest, served.grpc_address)
    yield routes
    routes.close()


@pytest.mark.usefixtures("same_workers")
@pytest.mark.parametrize(
    ("route", "case"),
    [("raw", "REST: an error in a mixed batch"), ("grpc", "gRPC: an error in a mixed batch")],
)
def test_a_bad_member_of_a_batch(
    served: Server, client: Client, jpeg: bytes, heavy: bytes, route: str, case: str
) -> None:
    """Those that arrive while the worker is busy are a batch, which a slow machine may miss."""

    def ask(picture: bytes) -> Reply:
        return ROUTES[route](client, "resnet101", picture)

    pictures = [jpeg[:2000] if i == BAD else jpeg for i in range(PICTURES)]
    for _ in range(ATTEMPTS):
        before = len(served.log())
        with ThreadPoolExecutor(PICTURES + 1) as pool:
            busy = pool.submit(ask, heavy)
            time.sleep(0.2)
            replies = list(pool.map(ask, pictures))
            assert busy.result().code == 200
        lone = json.loads(ask(jpeg).body)["predictions"]
        wait_until(lambda: "batch of 1:" in served.log()[before:])  # noqa: B023
        batches = re.findall("batch of [0-9]+: (.+?);", served.log()[before:])
        if any("BadImage" in batch and " ok" in batch for batch in batches):
            break
    else:
        pytest.fail("the damaged picture was never in a batch with another: nothing is proved")
    assert [reply.code for reply in replies] == [400 if i == BAD else 200 for i in range(PICTURES)]
    bad = replies.pop(BAD)
    assert bad.kind == "BadImage"
    assert bad.has_status is served.expected(case, True)
    for reply in replies:
        for got, expected in zip(json.loads(reply.body)["predictions"], lone, strict=True):
            assert got["class_id"] == expected["class_id"]
            assert got["probability"] == pytest.approx(expected["probability"], abs=1e-4)


def test_a_full_queue_is_said_at_once(served: Server) -> None:
    """A client that sends more than the queue holds is asked to wait; the others are answered."""

    def ask(_: int) -> tuple[int, str, bool]:
        answer = post(served, "cyclegan", data=b"no picture")
        return answer.status_code, answer.json()["type"], "retry-after" in answer.headers

    with ThreadPoolExecutor(QUEUE) as pool:
        with held(served, "cyclegan"):
            asked = [pool.submit(ask, i) for i in range(QUEUE)]
            wait_until(lambda: any(answer.done() for answer in asked))
            time.sleep(0.5)
        answers = {answer.result() for answer in asked}
    refused = served.expected("a full queue", (429, "TooManyRequests", True))
    assert answers == {(400, "BadImage", False), refused}
