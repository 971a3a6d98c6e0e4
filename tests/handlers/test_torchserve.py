"""The transport: TorchServe's headers, gRPC calls, descriptions and statuses."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from ts.context import RequestProcessor
from ts.service import Service
from ts.utils.util import PredictionException

from handlers.errors import NotFound
from handlers.request import Message
from handlers.torchserve import Handler, header_values, is_bidirectional, is_grpc, message
from tests.handlers.support import REST, Predict, Reply, Sent, body, upload

FIELD = {"content-type": "application/octet-stream"}


def call(**inputs: bytes) -> Sent:
    """A gRPC call: TorchServe passes the ``input`` map and no headers."""
    return inputs, {}


def bidirectional(**inputs: bytes) -> Sent:
    """A call of StreamPredictions2."""
    return inputs, {"ts_request_sequence_id": "x"}


def kind(reply: Reply) -> str:
    """The type of the error, or ``predictions``."""
    answer: dict[str, str] = json.loads(reply[2])
    return answer.get("type", "predictions")


@pytest.mark.parametrize(
    ("headers", "grpc", "stream"),
    [
        ({}, True, False),
        ({"data": FIELD}, True, False),
        ({"data": FIELD, "host": FIELD}, True, False),
        ({"data": FIELD, "ts_request_sequence_id": "ts-seq-1"}, True, True),
        ({"Host": "localhost"}, False, False),
        ({"HOST": "localhost", "data": FIELD}, False, False),
        ({"Host": "localhost", "ts_request_sequence_id": "x"}, False, False),
        ({"url_path": "", "explain": "False"}, False, False),  # HTTP/1.0 without Host
    ],
)
def test_grpc_calls_have_no_headers(
    headers: Mapping[str, object], grpc: bool, stream: bool
) -> None:
    values = header_values(headers)
    assert (is_grpc(values), is_bidirectional(values)) == (grpc, stream)


def test_form_fields_among_the_headers_are_not_headers() -> None:
    mixed = {"data": FIELD, "X-Top-K": FIELD, "Accept": FIELD, "Host": "h", "X-Size": "64"}
    assert header_values(mixed) == {"host": "h", "x-size": "64"}
    request = upload({"data": b"P"}, mixed)
    assert request.options == {"size": "64"}
    assert request.accept == ""


@pytest.mark.parametrize("asked", ["True", "False"])
def test_explanations_are_not_found(asked: str) -> None:
    """TorchServe passes /explanations and /predictions to the same handler, with this header."""
    received = message({"body": b"P"}, {"url_path": "", "explain": asked})
    assert isinstance(received, NotFound) == (asked == "True")


@pytest.mark.parametrize(
    ("headers", "expected"), [(REST, "given"), ({**REST, "X-Request-Id": "own"}, "own")]
)
def test_the_log_has_torchserves_id_if_the_client_sends_none(
    headers: Mapping[str, str], expected: str
) -> None:
    received = message({"body": b"P"}, header_values(headers), "given")
    assert isinstance(received, Message)
    assert received.id == expected


@pytest.mark.parametrize(
    ("fixture", "name", "classes"), [("resnet", "resnet101", 1000), ("cyclegan", "cyclegan", 0)]
)
def test_describe_gives_the_metadata_and_the_limits(
    request: pytest.FixtureRequest, predict: Predict, fixture: str, name: str, classes: int
) -> None:
    handler: Handler = request.getfixturevalue(fixture)
    (reply,) = predict(handler, ({}, {"describe": "True"}))
    description = json.loads(reply[2])
    assert description == json.loads(json.dumps(handler.service.describe()))
    assert description["name"] == description["spec"]["name"] == name
    assert description["weights"]["name"] == "untrained"
    assert description["weights"]["trained"] is False
    assert description["device"] == "cpu"
    assert len(description["spec"]["labels"]) == classes
    assert description["limits"]["pixels"] == 50_000_000


@pytest.mark.parametrize(
    "headers", [{"describe": "True", "content-type": "multipart/form-data"}, {"describe": "False"}]
)
def test_a_client_cannot_ask_for_the_description(
    resnet: Handler, predict: Predict, headers: dict[str, str]
) -> None:
    """An empty form is an empty row too. A description may name files of the server."""
    (reply,) = predict(resnet, ({}, REST | headers))
    assert (reply[0], kind(reply)) == (400, "EmptyBody")


def test_a_picture_with_the_header_describe_is_a_prediction(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    (reply,) = predict(resnet, body(chelsea, {"describe": "True"}))
    assert kind(reply) == "predictions"


@pytest.mark.parametrize(
    ("sent", "code", "name"),
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
def test_a_grpc_batch_with_one_error_for_all_raises_it(
    resnet: Handler, predict: Predict, sent: Sent, code: int, name: str, count: int
) -> None:
    with pytest.raises(PredictionException) as caught:
        predict(resnet, *[sent] * count)
    assert caught.value.error_code == code
    error = json.loads(caught.value.message)
    assert (error["code"], error["type"]) == (code, name)
    assert error["message"]


def test_a_network_that_fails_for_the_whole_grpc_batch_raises(
    resnet: Handler, predict: Predict, chelsea: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(batch: object) -> object:
        raise RuntimeError("secret")

    monkeypatch.setattr(resnet.service.engine, "_network", broken)
    with pytest.raises(PredictionException) as caught:
        predict(resnet, call(data=chelsea), call(data=chelsea))
    assert caught.value.error_code == 500
    assert "secret" not in caught.value.message


def test_options_in_the_grpc_input_map(resnet: Handler, predict: Predict, chelsea: bytes) -> None:
    (reply,) = predict(resnet, call(data=chelsea, top_k=b"2"))
    assert len(json.loads(reply[2])["predictions"]) == 2


def test_other_grpc_batches_are_answered_in_place(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    replies = predict(resnet, call(data=b"junk"), call(data=chelsea), call(data=b"%PDF"))
    assert [kind(reply) for reply in replies] == ["BadImage", "predictions", "UnsupportedFormat"]
    top_k = [call(data=b"x", top_k=b"0"), call(data=b"x", top_k=b"-1")]
    replies = predict(resnet, *top_k, call(data=b""))
    assert [kind(reply) for reply in replies] == ["InvalidOption", "InvalidOption", "EmptyBody"]
    assert replies[0][2] != replies[1][2]


@pytest.mark.parametrize("others", [[], [body(b"junk")] * 2, [call(data=b"junk")]])
def test_a_batch_with_a_rest_request_never_raises(
    resnet: Handler, predict: Predict, others: list[Sent]
) -> None:
    replies = predict(resnet, *others, body(b"junk"))
    assert [(reply[0], kind(reply)) for reply in replies] == [(400, "BadImage")] * len(replies)


def test_a_batch_with_a_bidirectional_call_never_raises(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    """If it did, TorchServe's thread would end, and the model would stop answering."""
    replies = predict(resnet, bidirectional(data=b"x"), bidirectional(data=b"x"))
    assert [kind(reply) for reply in replies] == ["BadRequest", "BadRequest"]
    replies = predict(resnet, bidirectional(data=b"x"), call(data=chelsea), call(data=b"x"))
    assert [kind(reply) for reply in replies] == ["BadRequest", "predictions", "BadImage"]


def test_each_status_has_an_ascii_phrase(resnet: Handler, chelsea: bytes) -> None:
    context = Service("model", "/", {}, resnet.handle, None, 2).context
    context.request_processor = [RequestProcessor(dict(REST)) for _ in range(2)]
    resnet.handle([{"body": chelsea}, {"body": b""}], context)
    statuses = [context.get_response_status(i) for i in range(2)]
    assert [code for code, _ in statuses] == [200, 400]
    assert all(phrase and phrase.isascii() for _, phrase in statuses)


def test_the_id_of_a_grpc_call_is_an_entry_that_the_gateway_adds() -> None:
    row = {"data": b"P", "x-request-id": b"id-1", "traceparent": b"00-1-2-01", "x-top-k": b"1"}
    received = message(row, {})
    assert isinstance(received, Message)
    assert received.id == "id-1"
    assert received.fields == {"data": b"P", "x-top-k": b"1"}
    # Over REST such a field is the client's, and the header counts.
    received = message(row, {"host": "h", "x-request-id": "id-2"})
    assert isinstance(received, Message)
    assert (received.id, received.fields) == ("id-2", row)
