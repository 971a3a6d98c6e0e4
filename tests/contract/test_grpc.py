"""Predictions over gRPC, as a stock client without our code sees them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import requests
from PIL import Image

from tests.routes import TIMEOUT_S, Server, post, predict, prediction

SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"
PREDICTIONS = f"{SERVICE}/Predictions"
MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService"


def test_classify(served: Server, jpeg: bytes) -> None:
    predictions = json.loads(predict(served, "resnet101", data=jpeg, top_k=b"2"))["predictions"]
    assert len(predictions) == 2
    assert set(predictions[0]) == {"class_id", "label", "probability"}


def test_translate(served: Server, jpeg: bytes) -> None:
    answer = predict(served, "cyclegan", data=jpeg, size=b"128", format=b"webp", quality=b"80")
    with Image.open(io.BytesIO(answer)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (192, 128))


def test_a_picture_of_many_megabytes(served: Server) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((2600, 2600), 100).convert("RGB").save(buffer, "PNG")
    assert 8 * 2**20 < len(buffer.getvalue()) < 16 * 2**20
    assert b"predictions" in predict(served, "resnet101", data=buffer.getvalue())


def test_base64_is_no_picture_here(served: Server) -> None:
    found = outcome(unary, served, prediction("resnet101", data=b"/9j/4AAQSkZJRgABAQ=="))
    assert (found.status, found.type) == ("INVALID_ARGUMENT", "BadImage")


def test_the_initial_metadata_says_whose_answer_it_is(served: Server, jpeg: bytes) -> None:
    _, call = served.grpc.Predictions.with_call(
        prediction("resnet101", data=jpeg),
        timeout=TIMEOUT_S,
        metadata=[("x-request-id", "order-7")],
    )
    metadata = dict(call.initial_metadata())
    names = ("x-model-weights", "x-model-version", "x-request-id")
    answer = requests.post(served.url("resnet101"), data=jpeg, timeout=TIMEOUT_S)
    version = answer.headers["x-model-version"]
    expected = ["untrained", version, "order-7"]
    found = [metadata.get(name) for name in names]
    assert found == served.expected("gRPC: metadata of an answer", expected)


def test_a_call_may_name_the_version(served: Server, jpeg: bytes) -> None:
    answer = requests.post(served.url("resnet101"), data=jpeg, timeout=TIMEOUT_S)
    request = prediction("resnet101", data=jpeg)
    request.model_version = answer.headers["x-model-version"]
    found = json.loads(served.grpc.Predictions(request, timeout=TIMEOUT_S).prediction)
    assert found["predictions"][0] == pytest.approx(answer.json()["predictions"][0])


@pytest.mark.usefixtures("same_workers")
def test_streams_in_a_batch_with_others(served: Server, jpeg: bytes) -> None:
    """TorchServe's worker ends with a streamed answer that lacks one header."""

    def stream() -> list[bytes]:
        request = prediction("resnet101", data=jpeg)
        answers = served.grpc.StreamPredictions(request, timeout=TIMEOUT_S)
        return [answer.prediction for answer in answers]

    with ThreadPoolExecutor(14) as pool:
        streams = [pool.submit(stream) for _ in range(4)]
        unary = [pool.submit(predict, served, "resnet101", data=jpeg) for _ in range(6)]
        rest = [pool.submit(post, served, "resnet101", data=jpeg) for _ in range(4)]
        for call in streams:
            [answer] = call.result()
            assert len(json.loads(answer)["predictions"]) == 5
        assert all(b"predictions" in answer.result() for answer in unary)
        for response in rest:
            assert response.result().status_code == 200
            assert "ts_stream_next" not in response.result().headers


@dataclass(frozen=True)
class Outcome:
    """How a call ended: its status, details and metadata."""

    status: str
    details: str = ""
    metadata: dict[str, str | bytes] = field(default_factory=dict)

    @property
    def json(self) -> dict[str, Any]:
        """The details' first line."""
        error: dict[str, Any] = json.loads(self.details.partition("\n")[0])
        return error

    @property
    def type(self) -> str:
        """The type in the JSON, empty if there is none."""
        try:
            return str(self.json["type"])
        except ValueError:
            return ""


def outcome(call: Callable[..., Any], *arguments: Any, **options: Any) -> Outcome:
    try:
        call(*arguments, timeout=TIMEOUT_S, **options)
    except grpc.RpcError as caught:
        error: Any = caught
        metadata = (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ()))
        return Outcome(error.code().name, error.details(), dict(metadata))
    return Outcome("OK")


def streamed(served: Server, request: object, **options: Any) -> list[Any]:
    return list(served.grpc.StreamPredictions(request, **options))


def unary(served: Server, request: object, **options: Any) -> Any:
    return served.grpc.Predictions(request, **options)


Method = Callable[..., Any]
METHODS = pytest.mark.parametrize("method", [unary, streamed])


@pytest.mark.parametrize(
    ("fields", "status", "code", "type"),
    [
        ({"data": b"broken"}, "INVALID_ARGUMENT", 400, "BadImage"),
        ({}, "INVALID_ARGUMENT", 400, "EmptyBody"),
        ({"data": b"P", "top_k": b"0"}, "FAILED_PRECONDITION", 422, "InvalidOption"),
        ({"data": b"\0\0\0\x18ftypheic"}, "FAILED_PRECONDITION", 415, "UnsupportedFormat"),
        ({"data": b"x" * (17 * 2**20)}, "RESOURCE_EXHAUSTED", 413, "TooLarge"),
        ({f"n{i}": b"" for i in range(101)}, "INVALID_ARGUMENT", 400, "BadRequest"),
    ],
    ids=["damaged", "empty", "option", "heic", "17 MiB", "101 fields"],
)
@METHODS
def test_errors_are_statuses(
    served: Server, method: Method, fields: dict[str, bytes], status: str, code: int, type: str
) -> None:
    found = outcome(method, served, prediction("resnet101", **fields))
    assert (found.status, found.json["code"], found.json["type"]) == (status, code, type)
    assert set(found.json) == {"code", "type", "message"}
    assert found.json["message"]
    lines = len(found.details.splitlines())
    assert lines == served.expected("gRPC: lines of an error's details", 1)
    types = {type} if "x-error-type" in found.metadata else set()
    assert types == served.expected("gRPC: x-error-type of an error", {type})


@METHODS
def test_more_bytes_than_a_request_may_have(served: Server, method: Method) -> None:
    request = prediction("resnet101", data=b"x" * (25 * 2**20))
    found = outcome(method, served, request)
    expected = served.expected("gRPC: 25 MiB", ("RESOURCE_EXHAUSTED", "TooLarge"))
    assert (found.status, found.type) == expected


NOT_FOUND = ("NOT_FOUND", "ModelNotFound")


@pytest.mark.parametrize("model", ["nothing", "", "a/b", 'x"', "m" * 300])
def test_an_unknown_model_is_not_found(served: Server, model: str) -> None:
    request = prediction(model, data=b"P")
    found = outcome(unary, served, request)
    assert (found.status, found.type) == served.expected("gRPC: unknown model", NOT_FOUND)


def test_an_unknown_version_is_not_found(served: Server) -> None:
    request = prediction("resnet101", data=b"P")
    request.model_version = "7.0"
    found = outcome(unary, served, request)
    assert (found.status, found.type) == served.expected("gRPC: unknown version", NOT_FOUND)


def raw(served: Server, path: str, body: bytes, **options: Any) -> None:
    """A call of any method with any bytes."""
    with grpc.insecure_channel(served.grpc_address) as channel:
        channel.unary_unary(path)(body, **options)


@pytest.mark.parametrize(
    ("case", "body", "status"),
    [
        ("gRPC: no bytes", b"", "NOT_FOUND"),
        ("gRPC: no picture", b"\x0a\x09resnet101", "INVALID_ARGUMENT"),
        ("gRPC: endless field", b"\x0a\xff\xff\xff\xff\x7fresnet101", "INVALID_ARGUMENT"),
        ("gRPC: cut field", b"\x0a\x20short", "INVALID_ARGUMENT"),
        ("gRPC: 0xff", b"\xff" * 40, "INVALID_ARGUMENT"),
        ("gRPC: another field", b"\x08\x01", "INVALID_ARGUMENT"),
    ],
)
def test_messages_that_are_none(served: Server, case: str, body: bytes, status: str) -> None:
    found = outcome(raw, served, PREDICTIONS, body)
    assert found.status == served.expected(case, status)


def test_compression_is_refused_as_grpc_prescribes(served: Server, jpeg: bytes) -> None:
    request = prediction("resnet101", data=jpeg)
    found = outcome(unary, served, request, compression=grpc.Compression.Gzip)
    assert found.status == served.expected("gRPC: compressed", "UNIMPLEMENTED")


@pytest.mark.parametrize(
    ("case", "path"),
    [
        ("gRPC: StreamPredictions2", f"{SERVICE}/StreamPredictions2"),
        ("gRPC: an unknown method", f"{SERVICE}/Nothing"),
        ("gRPC: an unknown service", f"{MANAGEMENT}/ListModels"),
        ("gRPC: an unknown service", f"{MANAGEMENT}/ScaleWorker"),
        (
            "gRPC: an unknown service",
            "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer",
        ),
        (
            "gRPC: reflection",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ),
    ],
)
def test_there_are_no_other_methods(served: Server, case: str, path: str) -> None:
    found = outcome(raw, served, path, b"\x0a\x09resnet101")
    assert found.status == served.expected(case, "UNIMPLEMENTED")
