"""The prediction contract over gRPC, with the stubs of our own .proto."""

from __future__ import annotations

import io
import json

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from PIL import Image

from tests.routes import TIMEOUT_S, predict
from tests.running import Running

INVALID, FAILED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION


def test_ping(server: Running) -> None:
    assert json.loads(server.grpc.Ping(Empty(), timeout=TIMEOUT_S).health)["status"] == "Healthy"


def test_classify(server: Running, jpeg: bytes) -> None:
    predictions = json.loads(predict(server, "resnet101", data=jpeg, top_k=b"2"))["predictions"]
    assert len(predictions) == 2
    assert set(predictions[0]) == {"class_id", "label", "probability"}


def test_translate(server: Running, jpeg: bytes) -> None:
    answer = predict(server, "cyclegan", data=jpeg, size=b"128", format=b"webp", quality=b"80")
    with Image.open(io.BytesIO(answer)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (192, 128))


def test_a_picture_of_many_megabytes(server: Running) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((2600, 2600), 100).convert("RGB").save(buffer, "PNG")
    assert 8 * 2**20 < len(buffer.getvalue()) < 16 * 2**20
    assert b"predictions" in predict(server, "resnet101", data=buffer.getvalue())


@pytest.mark.parametrize(
    ("fields", "code", "status"),
    [
        ({"data": b"no picture"}, 400, INVALID),
        ({}, 400, INVALID),
        ({"data": bytes(16 * 2**20 + 1)}, 413, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ({"data": b"%PDF-1.7"}, 415, FAILED),
        ({"data": b"", "top_k": b"x"}, 400, INVALID),
        ({"data": b"JPEG", "top_k": b"0"}, 422, FAILED),
    ],
)
def test_a_lone_error_is_a_status_with_the_same_json(
    server: Running, jpeg: bytes, fields: dict[str, bytes], code: int, status: grpc.StatusCode
) -> None:
    if fields.get("data") == b"JPEG":
        fields = {**fields, "data": jpeg}
    with pytest.raises(grpc.RpcError) as caught:
        predict(server, "resnet101", **fields)
    assert caught.value.code() == status
    # TorchServe appends the name of its exception class on a line of its own.
    assert json.loads(caught.value.details().splitlines()[0])["code"] == code
