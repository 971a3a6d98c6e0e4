"""gRPC through the gateway, as a stock client without our code sees it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.routes import prediction
from tests.running import Running, wait_until
from tests.serving.gateway.logs import access, worker_log

TIMEOUT_S = 60
SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """The status of a call that must fail, and the JSON in its details."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    details = json.loads(error.details())
    assert set(details) == {"code", "type", "message"}
    assert details["message"]
    return error.code(), details


def raw(server: Running, path: str, body: bytes, **options: Any) -> bytes:
    """A call of any method with any bytes."""
    with grpc.insecure_channel(server.config.grpc) as channel:
        answer: bytes = channel.unary_unary(path)(body, timeout=TIMEOUT_S, **options)
        return answer


def test_each_member_of_a_mixed_batch_has_its_own_status(server: Running, jpeg: bytes) -> None:
    def ask(data: bytes) -> str:
        try:
            server.grpc.Predictions(prediction("resnet101", data=data), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            call: Any = error
            assert json.loads(call.details())["type"] == "BadImage"
            return str(call.code().name)
        return "OK"

    with ThreadPoolExecutor(12) as pool:
        names = list(pool.map(ask, [jpeg, b"broken", jpeg] * 8))
    assert names == ["OK", "INVALID_ARGUMENT", "OK"] * 8


@pytest.mark.parametrize(
    ("fields", "status", "code", "type"),
    [
        ({"data": b"broken"}, "INVALID_ARGUMENT", 400, "BadImage"),
        ({}, "INVALID_ARGUMENT", 400, "EmptyBody"),
        ({"data": b"P", "top_k": b"0"}, "FAILED_PRECONDITION", 422, "InvalidOption"),
        ({"data": b"\0\0\0\x18ftypheic"}, "FAILED_PRECONDITION", 415, "UnsupportedFormat"),
        ({"data": b"x" * (17 * 2**20)}, "RESOURCE_EXHAUSTED", 413, "TooLarge"),
        ({"data": b"x" * (25 * 2**20)}, "RESOURCE_EXHAUSTED", 413, "TooLarge"),
        ({f"n{i}": b"" for i in range(101)}, "INVALID_ARGUMENT", 400, "BadRequest"),
    ],
)
@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
def test_errors_are_statuses(
    server: Running, method: str, fields: dict[str, bytes], status: str, code: int, type: str
) -> None:
    def call() -> None:
        reply = getattr(server.grpc, method)(prediction("resnet101", **fields), timeout=TIMEOUT_S)
        if method == "StreamPredictions":
            list(reply)

    found, details = refused(call)
    assert (found.name, details["code"], details["type"]) == (status, code, type)


def test_an_unknown_model_is_not_found(server: Running) -> None:
    for model in ("nothing", "", "a/b", 'x"', "m" * 300):
        call = partial(server.grpc.Predictions, prediction(model, data=b"P"), timeout=TIMEOUT_S)
        found, details = refused(call)
        assert (found, details["type"]) == (grpc.StatusCode.NOT_FOUND, "ModelNotFound")


def test_an_unknown_version_is_not_found(server: Running) -> None:
    request = prediction("resnet101", data=b"P")
    request.model_version = "7.0"
    found, details = refused(partial(server.grpc.Predictions, request, timeout=TIMEOUT_S))
    assert (found, details["type"]) == (grpc.StatusCode.NOT_FOUND, "ModelNotFound")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "NOT_FOUND"),
        (b"\x0a\x09resnet101", "INVALID_ARGUMENT"),  # no picture
        (b"\x0a\xff\xff\xff\xff\x7fresnet101", "INVALID_ARGUMENT"),
        (b"\x0a\x20short", "INVALID_ARGUMENT"),
        (b"\xff" * 40, "INVALID_ARGUMENT"),
        (b"\x08\x01", "INVALID_ARGUMENT"),
    ],
)
def test_messages_that_are_none(server: Running, body: bytes, status: str) -> None:
    found, _ = refused(lambda: raw(server, f"{SERVICE}/Predictions", body))
    assert found.name == status


def test_compression_is_refused_as_grpc_prescribes(server: Running, jpeg: bytes) -> None:
    request = prediction("resnet101", data=jpeg)
    found, _ = refused(
        lambda: server.grpc.Predictions(
            request, timeout=TIMEOUT_S, compression=grpc.Compression.Gzip
        )
    )
    assert found == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "path",
    [
        f"{SERVICE}/StreamPredictions2",
        f"{SERVICE}/Nothing",
        "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels",
        "/org.pytorch.serve.grpc.management.ManagementAPIsService/ScaleWorker",
        "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer",
    ],
)
def test_no_other_method_reaches_torchserve(server: Running, path: str) -> None:
    log = server.run.logs / "ts_log.log"
    before = log.stat().st_size
    with pytest.raises(grpc.RpcError) as caught:
        raw(server, path, b"\x0a\x09resnet101")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with log.open() as file:
        file.seek(before)
        assert "StreamPredictions2" not in file.read()


def test_a_call_has_an_id_in_every_log(server: Running, jpeg: bytes) -> None:
    chosen = f"grpc-{uuid.uuid4().hex}"
    _, call = server.grpc.Predictions.with_call(
        prediction("resnet101", data=jpeg),
        timeout=TIMEOUT_S,
        metadata=[("x-request-id", chosen)],
    )
    metadata = dict(call.initial_metadata())
    assert metadata["x-request-id"] == chosen
    assert metadata["x-model-weights"] == "untrained"
    wait_until(lambda: f"{chosen} ok" in worker_log(server))
    line = access(server, chosen)
    assert (line["model"], line["grpc_status"], line["weights"]) == ("resnet101", 0, "untrained")


def test_an_error_is_in_the_access_log(server: Running) -> None:
    chosen = f"grpc-{uuid.uuid4().hex}"
    with pytest.raises(grpc.RpcError):
        server.grpc.Predictions(
            prediction("resnet101", data=b"broken"),
            timeout=TIMEOUT_S,
            metadata=[("x-request-id", chosen)],
        )
    line = access(server, chosen)
    assert (line["grpc_status"], line["error"], line["client"]) == (3, "BadImage", "127.0.0.1")


def test_health_is_true_over_grpc(server: Running) -> None:
    with grpc.insecure_channel(server.config.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "resnet101", "cyclegan"):
            request = health_pb2.HealthCheckRequest(service=service)
            answer = stub.Check(request, timeout=TIMEOUT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    ping = server.grpc.Ping(empty_pb2.Empty(), timeout=TIMEOUT_S)
    assert "Healthy" in ping.health


def test_health_is_watched(server: Running) -> None:
    """The first message comes at once, and a refusal is that of the health service."""
    with grpc.insecure_channel(server.config.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="resnet101"), timeout=TIMEOUT_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=TIMEOUT_S)
        call: Any = caught.value
        assert call.code() == grpc.StatusCode.NOT_FOUND
