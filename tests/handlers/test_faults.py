"""A bug of ours fails only the request that triggers it, and no internals reach the client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from handlers import request, service
from handlers.request import Answer, Request
from handlers.torchserve import Handler
from tests.handlers.support import REST, Predict, Reply, Save, body

Network = Callable[[torch.Tensor], torch.Tensor]
# ``fault(network, batch)``: the output to give instead of ``network(batch)``.
Fault = Callable[[Network, torch.Tensor], torch.Tensor]
Inject = Callable[[Fault], None]

GENERIC = {
    "code": 500,
    "type": "InternalError",
    "message": "the server failed on this request; its log says why",
}
SECRET = "secret of /opt/model_store"


@pytest.fixture(scope="module")
def red(saved: Save) -> bytes:
    """The picture that triggers the injected faults: no photograph is all red."""
    return saved(Image.new("RGB", (224, 224), (255, 0, 0)))


@pytest.fixture
def inject(resnet: Handler, monkeypatch: pytest.MonkeyPatch) -> Inject:
    """Replaces the network by a faulty one until the test ends."""

    def replace(fault: Fault) -> None:
        network = resnet.service.engine._network
        monkeypatch.setattr(resnet.service.engine, "_network", lambda batch: fault(network, batch))

    return replace


def is_red(batch: torch.Tensor) -> torch.Tensor:
    """Which rows of a normalised batch hold the red picture."""
    return (batch[:, 0].amin((1, 2)) > 2.2) & (batch[:, 1].amax((1, 2)) < -2)


def error(reply: Reply) -> dict[str, Any]:
    """The parsed body of a well-formed error."""
    status, headers, text = reply
    answer: dict[str, Any] = json.loads(text)
    assert headers["content-type"] == "application/json"
    assert headers["x-model-weights"] == "untrained"
    assert answer["code"] == status
    return answer


def predictions(reply: Reply) -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = json.loads(reply[2])["predictions"]
    return parsed


def test_a_bug_in_the_task(
    resnet: Handler,
    predict: Predict,
    chelsea: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = resnet.service.task.answer

    def broken(output: torch.Tensor, request: Request) -> Answer:
        if request.options["top_k"] == 3:
            raise ValueError(SECRET)
        return answer(output, request)

    monkeypatch.setattr(resnet.service.task, "answer", broken)
    replies = predict(resnet, *(({"data": chelsea, "top_k": k}, REST) for k in (b"2", b"3", b"4")))
    assert [reply[0] for reply in replies] == [200, 500, 200]
    assert error(replies[1]) == GENERIC
    assert [len(predictions(replies[i])) for i in (0, 2)] == [2, 4]
    assert SECRET in caplog.text
    assert "Traceback" in caplog.text


def test_a_bug_before_the_network(
    resnet: Handler, predict: Predict, chelsea: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = request.parse

    def broken(*arguments: Any) -> Request:
        parsed = parse(*arguments)
        if parsed.options["top_k"] == 3:
            raise KeyError(SECRET)
        return parsed

    monkeypatch.setattr(service, "parse", broken)
    replies = predict(resnet, *(({"data": chelsea, "top_k": k}, REST) for k in (b"3", b"4")))
    assert error(replies[0]) == GENERIC
    assert len(predictions(replies[1])) == 4


def test_a_failed_batch_is_repeated_one_by_one(
    resnet: Handler,
    predict: Predict,
    chelsea: bytes,
    red: bytes,
    inject: Inject,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (alone,) = predict(resnet, body(chelsea))
    sizes: list[int] = []

    def fail_on_red(network: Network, batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if is_red(batch).any():
            raise RuntimeError(SECRET)
        return network(batch)

    inject(fail_on_red)
    replies = predict(resnet, body(chelsea), body(red), body(chelsea))
    assert sizes == [3, 1, 1, 1]
    assert [reply[0] for reply in replies] == [200, 500, 200]
    assert error(replies[1]) == GENERIC
    expected = [p["class_id"] for p in predictions(alone)]
    for i in (0, 2):
        assert [p["class_id"] for p in predictions(replies[i])] == expected
    assert SECRET in caplog.text


def test_a_batch_that_is_too_large_for_the_memory_succeeds_one_by_one(
    resnet: Handler, predict: Predict, chelsea: bytes, inject: Inject
) -> None:
    def fail_on_batches(network: Network, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return network(batch)

    inject(fail_on_batches)
    replies = predict(resnet, body(chelsea), body(chelsea))
    assert [reply[0] for reply in replies] == [200, 200]


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "The following operation failed in the TorchScript interpreter.\n"
            "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"
        ),
        MemoryError(),
        None,  # the real message of the CPU allocator
    ],
    ids=["PyTorch", "TorchScript", "Python", "CPU"],
)
def test_out_of_memory_is_an_overload(
    resnet: Handler,
    predict: Predict,
    chelsea: bytes,
    red: bytes,
    inject: Inject,
    failure: Exception | None,
) -> None:
    def fail_on_red(network: Network, batch: torch.Tensor) -> torch.Tensor:
        if is_red(batch).any():
            if failure is not None:
                raise failure
            torch.empty(2**60, dtype=torch.uint8)
        return network(batch)

    inject(fail_on_red)
    replies = predict(resnet, body(red), body(chelsea))
    assert [reply[0] for reply in replies] == [503, 200]
    answer = error(replies[0])
    assert answer["type"] == "Overloaded"
    assert "GiB" not in answer["message"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite(
    resnet: Handler, predict: Predict, chelsea: bytes, red: bytes, inject: Inject, value: float
) -> None:
    def overflow_on_red(network: Network, batch: torch.Tensor) -> torch.Tensor:
        output = network(batch).clone()
        output[is_red(batch), 17] = value
        return output

    inject(overflow_on_red)
    replies = predict(resnet, body(chelsea), body(red), body(chelsea))
    assert [reply[0] for reply in replies] == [200, 500, 200]
    assert error(replies[1]) == GENERIC
