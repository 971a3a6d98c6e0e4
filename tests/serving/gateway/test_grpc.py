"""gRPC through the gateway, as a stock client without our code sees it."""

from __future__ import annotations

import uuid

import grpc
import pytest

from tests.routes import prediction
from tests.running import Running, wait_until
from tests.serving.gateway.logs import access

TIMEOUT_S = 60
SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"


def test_no_bidirectional_stream_reaches_torchserve(server: Running) -> None:
    log = server.run.logs / "ts_log.log"
    before = log.stat().st_size
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(f"{SERVICE}/StreamPredictions2")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\x0a\x09resnet101", timeout=TIMEOUT_S)
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
    wait_until(lambda: f"{chosen} ok" in server.log())
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
