"""Requests that TorchServe puts into one batch: each is answered as if it were alone.

``tests/handlers/test_isolation.py`` holds the handlers to it for every kind of error and option.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from serving.failures import LogTail
from tests.running import wait_until
from vision_client import inference_pb2

TIMEOUT_S = 120


def wait_until_busy(log: LogTail) -> None:
    wait_until(lambda: "Backend received inference" in log.read())


def send_together(
    server: Any, model: str, blocker: bytes, rows: Sequence[dict[str, Any]]
) -> list[requests.Response]:
    """Send ``rows`` at once while the worker is at ``blocker``, so that they make one batch."""

    def post(row: dict[str, Any]) -> requests.Response:
        return requests.post(server.url(model), timeout=TIMEOUT_S, **row)

    log = LogTail(server.run.logs / "model_log.log")
    with ThreadPoolExecutor(len(rows) + 1) as pool:
        first = pool.submit(post, {"data": blocker})
        wait_until_busy(log)
        answers = list(pool.map(post, rows))
        assert first.result().status_code in (200, 413)
    assert f"batch of {len(rows)}:" in log.read(), "they were not one batch: nothing is proved"
    return answers


def test_one_bad_member_of_eight(server: Any, jpeg: bytes, heavy: bytes) -> None:
    lone = requests.post(server.url("resnet101"), data=jpeg, timeout=TIMEOUT_S).json()
    before = server.api.workers("resnet101")
    rows: list[dict[str, Any]] = [{"data": jpeg} for _ in range(8)]
    rows[3] = {"data": jpeg[:2000]}
    answers = send_together(server, "resnet101", heavy, rows)
    assert [a.status_code for a in answers] == [200, 200, 200, 400, 200, 200, 200, 200]
    assert answers[3].json()["type"] == "BadImage"
    for answer in answers[:3] + answers[4:]:
        for got, expected in zip(answer.json()["predictions"], lone["predictions"], strict=True):
            assert got["class_id"] == expected["class_id"]
            assert got["probability"] == pytest.approx(expected["probability"], abs=1e-4)
    after = server.api.workers("resnet101")
    assert [worker.pid for worker in after] == [worker.pid for worker in before]


def test_one_bad_member_of_eight_over_grpc(server: Any, jpeg: bytes, heavy: bytes) -> None:
    """TorchServe has one status for a batch over gRPC: the error travels as JSON in its place."""

    def ask(picture: bytes) -> Any:
        fields = {"data": picture, "top_k": b"1"}
        request = inference_pb2.PredictionsRequest(model_name="resnet101", input=fields)
        return server.grpc.Predictions.future(request, timeout=TIMEOUT_S)

    log = LogTail(server.run.logs / "model_log.log")
    blocker = ask(heavy)
    wait_until_busy(log)
    calls = [ask(jpeg[:2000] if i == 5 else jpeg) for i in range(8)]
    answers = [json.loads(call.result().prediction) for call in calls]
    assert blocker.result()
    assert "batch of 8:" in log.read(), "they were not one batch: nothing is proved"
    assert [answer.get("code") for answer in answers] == [None] * 5 + [400] + [None] * 2
    good = answers[:5] + answers[6:]
    assert len({answer["predictions"][0]["class_id"] for answer in good}) == 1
