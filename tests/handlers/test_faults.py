"""A fault of ours stays with the request that met it; the client learns nothing of our insides."""

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

Reply = tuple[int, dict[str, str], bytes]
Predict = Callable[..., list[Reply]]
Network = Callable[[torch.Tensor], torch.Tensor]

REST = {"Host": "localhost:8080"}
GENERIC = {
    "code": 500,
    "type": "InternalError",
    "message": "the server failed on this request; its log says why",
}
SECRET = "secret of /opt/model_store"


@pytest.fixture(scope="module")
def red(saved: Callable[..., bytes]) -> bytes:
    """The picture that the injected faults are about: no photograph is all red."""
    return saved(Image.new("RGB", (224, 224), (255, 0, 0)))


def is_red(batch: torch.Tensor) -> torch.Tensor:
    """Which rows of a normalised batch are the red picture."""
    return (batch[:, 0].amin((1, 2)) > 2.2) & (batch[:, 1].amax((1, 2)) < -2)


def send(predict: Predict, handler: Handler, *pictures: bytes) -> list[Reply]:
    return predict(handler, *(({"body": picture}, REST) for picture in pictures))


def told(reply: Reply) -> dict[str, Any]:
    status, headers, body = reply
    answer: dict[str, Any] = json.loads(body)
    assert headers["content-type"] == "application/json"
    assert headers["x-model-weights"] == "untrained"
    assert answer["code"] == status
    return answer


def failing_on_red(network: Network, error: Exception, sizes: list[int]) -> Network:
    def forward(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if is_red(batch).any():
            raise error
        return network(batch)

    return forward


def test_a_bug_in_our_own_code(
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
    sent = [({"data": chelsea, "top_k": k}, REST) for k in (b"2", b"3", b"4")]
    replies = predict(resnet, *sent)
    assert [reply[0] for reply in replies] == [200, 500, 200]
    assert told(replies[1]) == GENERIC
    assert [len(json.loads(replies[i][2])["predictions"]) for i in (0, 2)] == [2, 4]
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
    sent = [({"data": chelsea, "top_k": k}, REST) for k in (b"3", b"4")]
    replies = predict(resnet, *sent)
    assert told(replies[0]) == GENERIC
    assert len(json.loads(replies[1][2])["predictions"]) == 4


def test_a_network_that_fails_is_tried_one_by_one(
    resnet: Handler,
    predict: Predict,
    chelsea: bytes,
    red: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lone = json.loads(send(predict, resnet, chelsea)[0][2])["predictions"]
    sizes: list[int] = []
    fault = failing_on_red(resnet.service.engine._network, RuntimeError(SECRET), sizes)
    monkeypatch.setattr(resnet.service.engine, "_network", fault)
    replies = send(predict, resnet, chelsea, red, chelsea)
    assert sizes == [3, 1, 1, 1]
    assert [reply[0] for reply in replies] == [200, 500, 200]
    assert told(replies[1]) == GENERIC
    for i in (0, 2):
        assert [p["class_id"] for p in json.loads(replies[i][2])["predictions"]] == [
            p["class_id"] for p in lone
        ]
    assert SECRET in caplog.text


def test_a_batch_that_fails_where_none_of_its_pictures_does(
    resnet: Handler, predict: Predict, chelsea: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch can be too large for the memory where each of its pictures fits."""
    network = resnet.service.engine._network

    def small_only(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        output: torch.Tensor = network(batch)
        return output

    monkeypatch.setattr(resnet.service.engine, "_network", small_only)
    assert [reply[0] for reply in send(predict, resnet, chelsea, chelsea)] == [200, 200]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "The following operation failed in the TorchScript interpreter.\n"
            "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"
        ),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 400000000000 bytes. Error code 12"),
        MemoryError(),
    ],
    ids=["PyTorch", "TorchScript", "CPU", "Python"],
)  # fmt: skip
def test_no_memory_is_an_overload(
    resnet: Handler,
    predict: Predict,
    chelsea: bytes,
    red: bytes,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    monkeypatch.setattr(
        resnet.service.engine, "_network", failing_on_red(resnet.service.engine._network, error, [])
    )
    replies = send(predict, resnet, red, chelsea)
    assert [reply[0] for reply in replies] == [503, 200]
    answer = told(replies[0])
    assert answer["type"] == "Overloaded"
    assert "GiB" not in answer["message"]


def test_the_cpu_allocators_own_words_are_known_as_no_memory(
    resnet: Handler,
    predict: Predict,
    chelsea: bytes,
    red: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = resnet.service.engine._network

    def greedy(batch: torch.Tensor) -> torch.Tensor:
        if is_red(batch).any():
            torch.empty(2**60, dtype=torch.uint8)
        output: torch.Tensor = network(batch)
        return output

    monkeypatch.setattr(resnet.service.engine, "_network", greedy)
    assert [reply[0] for reply in send(predict, resnet, chelsea, red)] == [200, 503]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_no_number(
    resnet: Handler,
    predict: Predict,
    chelsea: bytes,
    red: bytes,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
) -> None:
    network = resnet.service.engine._network

    def overflowing(batch: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = network(batch).clone()
        output[is_red(batch), 17] = value
        return output

    monkeypatch.setattr(resnet.service.engine, "_network", overflowing)
    replies = send(predict, resnet, chelsea, red, chelsea)
    assert [reply[0] for reply in replies] == [200, 500, 200]
    assert told(replies[1]) == GENERIC
