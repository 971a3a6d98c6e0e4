"""The same contract over gRPC, with stubs of our own .proto against TorchServe's service."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import requests
from google.protobuf.empty_pb2 import Empty
from PIL import Image

from vision_client import inference_pb2

TIMEOUT_S = 60


def predict(server: Any, model: str, **fields: bytes) -> bytes:
    request = inference_pb2.PredictionsRequest(model_name=model, input=fields)
    answer: bytes = server.grpc.Predictions(request, timeout=TIMEOUT_S).prediction
    return answer


def test_ping(server: Any) -> None:
    assert json.loads(server.grpc.Ping(Empty(), timeout=TIMEOUT_S).health)["status"] == "Healthy"


def test_classify(server: Any, jpeg: bytes) -> None:
    predictions = json.loads(predict(server, "resnet101", data=jpeg, top_k=b"2"))["predictions"]
    assert len(predictions) == 2
    assert set(predictions[0]) == {"class_id", "label", "probability"}


def test_translate(server: Any, jpeg: bytes) -> None:
    answer = predict(server, "cyclegan", data=jpeg, size=b"128", format=b"webp", quality=b"80")
    with Image.open(io.BytesIO(answer)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (192, 128))


def test_a_picture_of_many_megabytes_passes(server: Any) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((2600, 2600), 100).convert("RGB").save(buffer, "PNG")
    assert 8 * 2**20 < len(buffer.getvalue()) < 16 * 2**20
    assert b"predictions" in predict(server, "resnet101", data=buffer.getvalue())


@pytest.mark.parametrize(
    ("fields", "code", "status"),
    [
        ({"data": b"no picture"}, 400, grpc.StatusCode.INVALID_ARGUMENT),
        ({}, 400, grpc.StatusCode.INVALID_ARGUMENT),
        ({"data": bytes(16 * 2**20 + 1)}, 413, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ({"data": b"%PDF-1.7"}, 415, grpc.StatusCode.FAILED_PRECONDITION),
        ({"data": b"", "top_k": b"x"}, 400, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_lone_error_is_a_status_with_the_same_json(
    server: Any, fields: dict[str, bytes], code: int, status: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        predict(server, "resnet101", **fields)
    assert caught.value.code() == status
    # TorchServe appends the name of its exception class on a line of its own.
    error = json.loads(caught.value.details().splitlines()[0])
    assert error["code"] == code


def test_options_are_validated(server: Any, jpeg: bytes) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        predict(server, "resnet101", data=jpeg, top_k=b"0")
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_a_stream_has_one_answer_and_harms_nobody(server: Any, jpeg: bytes) -> None:
    """TorchServe fails on a streamed answer without a certain header, and ends the worker."""
    before = [worker.pid for worker in server.management.workers("resnet101")]
    request = inference_pb2.PredictionsRequest(model_name="resnet101", input={"data": jpeg})
    damaged = inference_pb2.PredictionsRequest(model_name="resnet101", input={"data": b"damaged"})

    def stream(request: Any) -> list[Any]:
        return [
            json.loads(a.prediction) for a in server.grpc.StreamPredictions(request, timeout=60)
        ]

    with ThreadPoolExecutor(6) as pool:  # so that they meet others in batches
        streams = [pool.submit(stream, request) for _ in range(4)]
        unary = [pool.submit(predict, server, "resnet101", data=jpeg) for _ in range(4)]
        rest = [pool.submit(requests.post, server.url("resnet101"), data=jpeg) for _ in range(4)]
        answers = [answer for found in streams for answer in found.result()]
        assert len(answers) == 4
        assert {len(answer["predictions"]) for answer in answers} == {5}
        assert all(b"predictions" in found.result() for found in unary)
        for found in rest:
            assert (found.result().status_code, "ts_stream_next" in found.result().headers) == (
                200,
                False,
            )
    with pytest.raises(grpc.RpcError) as caught:
        stream(damaged)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [worker.pid for worker in server.management.workers("resnet101")] == before
