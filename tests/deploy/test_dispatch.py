"""What goes wrong with a replica becomes an error of the contract, or another attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deploy.ray import dispatch
from deploy.ray.dispatch import Served
from deploy.ray.messages import Call, Reply
from serving.gateway.admission import DOWN_S
from serving.refusals import Refused

REPLY = Reply(200, "application/json", b"{}")
DIED = ActorDiedError()
GONE = ActorUnavailableError("gone", b"0" * 16)
BROKEN = AioRpcError(StatusCode.INTERNAL, Metadata(), Metadata(), "Received RST_STREAM")
Outcome = Reply | Exception | float


class Response:
    """As a DeploymentResponse: an outcome, or no answer for some seconds."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.cancelled = False

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> Reply:
        if isinstance(self.outcome, float):
            await asyncio.sleep(self.outcome)
            return REPLY
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Answers one call after the other with ``outcomes``."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.responses: list[Response] = []

    def remote(self, _call: Call) -> Response:
        self.responses.append(Response(self.outcomes.pop(0)))
        return self.responses[-1]


def answer(
    handle: Any, timeout: float | None = None, down_for: Callable[[str], float] = lambda _: 0.0
) -> Coroutine[Any, Any, Reply]:
    served = Served("tiny", "translate", {}, "1.0", 10.0, 1, handle)
    return served.answer(Call(), timeout, down_for)


@pytest.mark.parametrize("death", [DIED, GONE, BROKEN])
def test_a_call_of_a_replica_that_ends_is_sent_again_once(death: Exception) -> None:
    assert asyncio.run(answer(Handle(death, REPLY))) is REPLY
    with pytest.raises(Refused) as caught:
        asyncio.run(answer(Handle(death, death, REPLY)))
    assert (caught.value.code, caught.value.type) == (507, "WorkerDied")


@pytest.mark.parametrize(
    ("error", "code", "type", "retry_after"),
    [
        (BackPressureError(100, 100), 503, "Overloaded", 1),
        (DeploymentUnavailableError(DeploymentID("tiny", "vision")), 503, "Unavailable", 5),
    ],
)
def test_a_call_that_no_replica_takes_is_refused_at_once(
    error: Exception, code: int, type: str, retry_after: int
) -> None:
    with pytest.raises(Refused) as caught:
        asyncio.run(answer(Handle(error, REPLY)))
    assert (caught.value.code, caught.value.type) == (code, type)
    assert caught.value.retry_after == retry_after


def test_a_call_that_takes_too_long_is_cancelled() -> None:
    handle = Handle(60.0)
    with pytest.raises(Refused) as caught:
        asyncio.run(answer(handle, timeout=0.05))
    assert (caught.value.code, caught.value.type) == (504, "DeadlineExceeded")
    assert handle.responses[0].cancelled


def test_a_client_that_leaves_cancels_its_call() -> None:
    handle = Handle(60.0)

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answer(handle), 0.05)

    asyncio.run(leave())
    assert handle.responses[0].cancelled


def test_calls_wait_for_a_new_replica_but_not_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "POLL_S", 0.01)
    assert asyncio.run(answer(Handle(0.1), down_for=lambda _: 10.0)) == REPLY
    handle = Handle(60.0)
    with pytest.raises(Refused) as caught:
        asyncio.run(answer(handle, down_for=lambda _: DOWN_S + 1))
    assert (caught.value.code, caught.value.type, caught.value.retry_after) == (
        503,
        "Unavailable",
        5,
    )
    assert handle.responses[0].cancelled


def test_a_bug_of_the_model_is_no_reason_to_send_the_call_again() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(answer(Handle(ZeroDivisionError(), REPLY)))
