"""Requests that TorchServe puts into one batch: each is answered as if it were alone.

``tests/handlers/test_isolation.py`` tests the handlers with every kind of error and option.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from serving.logs import LogTail
from tests.routes import post, predict
from tests.running import Running, wait_until

ATTEMPTS = 5
BAD = 3  # the position of the damaged picture


def over_rest(server: Running, picture: bytes) -> tuple[int, dict[str, Any]]:
    answer = post(server, "resnet101", data=picture)
    return answer.status_code, answer.json()


def over_grpc(server: Running, picture: bytes) -> tuple[int, dict[str, Any]]:
    try:
        return 200, json.loads(predict(server, "resnet101", data=picture))
    except grpc.RpcError as error:
        answer = json.loads(error.details())
        return answer["code"], answer


@pytest.mark.usefixtures("same_workers")
@pytest.mark.parametrize("ask", [over_rest, over_grpc])
def test_one_bad_member_of_eight(server: Running, jpeg: bytes, heavy: bytes, ask: Any) -> None:
    """They are one batch if all arrive while the worker is busy, which a slow machine may miss."""
    _, lone = ask(server, jpeg)
    pictures = [jpeg[:2000] if i == BAD else jpeg for i in range(8)]
    for _ in range(ATTEMPTS):
        log = LogTail(server.run.logs / "model_log.log")
        with ThreadPoolExecutor(len(pictures) + 1) as pool:
            blocker = pool.submit(ask, server, heavy)
            wait_until(lambda: "Backend received inference" in log.read())  # noqa: B023
            answers = list(pool.map(lambda picture: ask(server, picture), pictures))
            assert blocker.result()[0] == 200
        if f"batch of {len(pictures)}:" in log.read():
            break
    else:
        pytest.fail("they were never one batch: nothing is proved")
    assert [code for code, _ in answers] == [400 if i == BAD else 200 for i in range(8)]
    assert answers.pop(BAD)[1]["type"] == "BadImage"
    for _, answer in answers:
        for got, expected in zip(answer["predictions"], lone["predictions"], strict=True):
            assert got["class_id"] == expected["class_id"]
            assert got["probability"] == pytest.approx(expected["probability"], abs=1e-4)
