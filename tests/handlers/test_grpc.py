"""Over gRPC only bytes arrive, unless the whole batch fails alike: then a real status does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ts.utils.util import PredictionException

from handlers.torchserve import Handler

Reply = tuple[int, dict[str, str], bytes]
Sent = tuple[dict[str, Any], dict[str, str]]
Predict = Callable[..., list[Reply]]


def call(**inputs: bytes) -> Sent:
    """One call: TorchServe passes the ``input`` map and no header of its own."""
    return dict(inputs), {}


def bidirectional(**inputs: bytes) -> Sent:
    """A call of StreamPredictions2."""
    return dict(inputs), {"ts_request_sequence_id": "x"}


def rest(data: bytes) -> Sent:
    return {"body": data}, {"Host": "localhost:8080"}


def kind(reply: Reply) -> str:
    answer: dict[str, Any] = json.loads(reply[2])
    return str(answer["type"]) if "type" in answer else "predictions"


@pytest.mark.parametrize(
    ("sent", "code", "type_"),
    [
        (call(), 400, "EmptyBody"),
        (call(data=b"no picture"), 400, "BadImage"),
        (call(data=b"%PDF-1.7"), 415, "UnsupportedFormat"),
        (call(data=bytes(16 * 2**20 + 1)), 413, "TooLarge"),
        (call(data=b"x", top_k=b"many"), 422, "InvalidOption"),
        (call(body=b'{"data": "*"}'), 400, "BadRequest"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_that_fails_alike_raises(
    resnet: Handler, predict: Predict, sent: Sent, code: int, type_: str, count: int
) -> None:
    with pytest.raises(PredictionException) as caught:
        predict(resnet, *[sent] * count)
    assert caught.value.error_code == code
    told = json.loads(caught.value.message)
    assert (told["code"], told["type"]) == (code, type_)
    assert told["message"]


def test_a_picture_and_options_in_the_input_map(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    (reply,) = predict(resnet, call(data=chelsea, top_k=b"2"))
    assert len(json.loads(reply[2])["predictions"]) == 2


def test_a_mixed_batch_answers_each_in_its_place(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    replies = predict(resnet, call(data=b"junk"), call(data=chelsea), call(data=b"%PDF"))
    assert [kind(reply) for reply in replies] == ["BadImage", "predictions", "UnsupportedFormat"]


def test_errors_that_differ_are_answered_in_place(resnet: Handler, predict: Predict) -> None:
    replies = predict(
        resnet, call(data=b"x", top_k=b"0"), call(data=b"x", top_k=b"-1"), call(data=b"")
    )
    assert [kind(reply) for reply in replies] == ["InvalidOption", "InvalidOption", "EmptyBody"]
    assert replies[0][2] != replies[1][2]


def test_nobody_over_rest_is_hit_by_a_raise(resnet: Handler, predict: Predict) -> None:
    replies = predict(resnet, call(data=b"junk"), rest(b"junk"))
    assert [kind(reply) for reply in replies] == ["BadImage", "BadImage"]
    assert [reply[0] for reply in replies] == [400, 400]


def test_a_network_that_fails_for_all_raises_too(
    resnet: Handler, predict: Predict, chelsea: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(batch: object) -> object:
        raise RuntimeError("secret")

    monkeypatch.setattr(resnet.service.engine, "_network", broken)
    with pytest.raises(PredictionException) as caught:
        predict(resnet, call(data=chelsea), call(data=chelsea))
    assert caught.value.error_code == 500
    assert "secret" not in caught.value.message


def test_a_bidirectional_call_is_never_raised_for(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    """TorchServe's thread would end, and the model with it."""
    replies = predict(resnet, bidirectional(data=b"x"), bidirectional(data=b"x"))
    assert [kind(reply) for reply in replies] == ["BadRequest", "BadRequest"]
    replies = predict(resnet, bidirectional(data=b"x"), call(data=chelsea), call(data=b"x"))
    assert [kind(reply) for reply in replies] == ["BadRequest", "predictions", "BadImage"]
