"""Requests that TorchServe puts into one batch: each is answered as if it were alone.

``tests/handlers/test_isolation.py`` holds the handlers to it for every kind of error and option.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import requests

from serving.logs import LogTail
from tests.running import wait_until
from vision_client import inference_pb2

T = TypeVar("T")

TIMEOUT_S = 120
ATTEMPTS = 5


def wait_until_busy(log: LogTail) -> None:
    wait_until(lambda: "Backend received inference" in log.read())


def in_one_batch(server: Any, count: int, send: Callable[[LogTail], list[T]]) -> list[T]:
    """What ``send`` returns, once the ``count`` requests that it sends made one batch.

    They do where all of them arrive while the worker is busy with another, which a slow machine
    may miss.
    """
    for _ in range(ATTEMPTS):
        log = LogTail(server.run.logs / "model_log.log")
        answers = send(log)
        if f"batch of {count}:" in log.read():
            return answers
    pytest.fail("they were never one batch: nothing is proved")


def test_one_bad_member_of_eight(server: Any, jpeg: bytes, heavy: bytes) -> None:
    lone = requests.post(server.url("resnet101"), data=jpeg, timeout=TIMEOUT_S).json()
    before = server.management.workers("resnet101")
    rows: list[dict[str, Any]] = [{"data": jpeg} for _ in range(8)]
    rows[3] = {"data": jpeg[:2000]}

    def post(row: dict[str, Any]) -> requests.Response:
        return requests.post(server.url("resnet101"), timeout=TIMEOUT_S, **row)

    def send(log: LogTail) -> list[requests.Response]:
        with ThreadPoolExecutor(len(rows) + 1) as pool:
            blocker = pool.submit(post, {"data": heavy})
            wait_until_busy(log)
            answers = list(pool.map(post, rows))
            assert blocker.result().status_code == 200
        return answers

    answers = in_one_batch(server, len(rows), send)
    assert [a.status_code for a in answers] == [200, 200, 200, 400, 200, 200, 200, 200]
    assert answers[3].json()["type"] == "BadImage"
    for answer in answers[:3] + answers[4:]:
        for got, expected in zip(answer.json()["predictions"], lone["predictions"], strict=True):
            assert got["class_id"] == expected["class_id"]
            assert got["probability"] == pytest.approx(expected["probability"], abs=1e-4)
    after = server.management.workers("resnet101")
    assert [worker.pid for worker in after] == [worker.pid for worker in before]


def test_one_bad_member_of_eight_over_grpc(server: Any, jpeg: bytes, heavy: bytes) -> None:
    """TorchServe has one status for a batch over gRPC: the error travels as JSON in its place."""

    def ask(picture: bytes) -> Any:
        fields = {"data": picture, "top_k": b"1"}
        request = inference_pb2.PredictionsRequest(model_name="resnet101", input=fields)
        return server.grpc.Predictions.future(request, timeout=TIMEOUT_S)

    def send(log: LogTail) -> list[Any]:
        blocker = ask(heavy)
        wait_until_busy(log)
        calls = [ask(jpeg[:2000] if i == 5 else jpeg) for i in range(8)]
        assert blocker.result()
        return [json.loads(call.result().prediction) for call in calls]

    answers = in_one_batch(server, 8, send)
    assert [answer.get("code") for answer in answers] == [None] * 5 + [400] + [None] * 2
    good = answers[:5] + answers[6:]
    assert len({answer["predictions"][0]["class_id"] for answer in good}) == 1
