"""The front's own faults: clients see an error of the contract, and the log has the traceback."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest
from starlette.requests import Request

from deploy.ray.front import Front
from serving.refusals import Refused
from vision_client import inference_pb2


class Context:
    """The parts of Ray's gRPC context that a call sets."""

    status: grpc.StatusCode | None = None
    text = ""

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return []

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status = code

    def set_details(self, details: str) -> None:
        self.text = details

    def set_trailing_metadata(self, metadata: list[tuple[str, str]]) -> None:
        pass


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Front:
    """A front that watches nothing, and fails on every request."""

    async def fail(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Front, "_watch", lambda _: None)
    monkeypatch.setattr(Front, "_respond", fail)
    monkeypatch.setattr(Front, "_predict", fail)
    return Front({}, {}, 100, 100, None)


def test_a_bug_is_json(broken: Front, caplog: pytest.LogCaptureFixture) -> None:
    answer = asyncio.run(broken(Request({"type": "http", "headers": []})))
    error = json.loads(bytes(answer.body))
    assert (answer.status_code, error["code"], error["type"]) == (500, 500, "InternalError")
    assert "secret" not in error["message"]
    assert "ZeroDivisionError: secret" in caplog.text


def test_a_bug_is_a_status_over_grpc(broken: Front, caplog: pytest.LogCaptureFixture) -> None:
    context: Any = Context()
    asyncio.run(broken.Predictions(inference_pb2.PredictionsRequest(), context))
    assert context.status is grpc.StatusCode.INTERNAL
    assert json.loads(context.text)["type"] == "InternalError"
    assert "ZeroDivisionError: secret" in caplog.text


def test_large_requests_get_half_of_the_memory() -> None:
    front, large = Front({}, {}, 2**24, 2**23, None), 3 * 2**19
    with front._present("", "first", large), front._present("", "second", large):
        third = front._present("", "third", large)
        with pytest.raises(Refused, match="too many large") as caught, third:
            pass
        assert (caught.value.code, caught.value.type) == (503, "Overloaded")
        with front._present("", "small", 2**20):
            pass
    with front._present("", "third", large):
        pass
