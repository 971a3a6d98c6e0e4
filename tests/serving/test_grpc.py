"""The prediction contract over gRPC, with the stubs of our own .proto."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from tests.routes import TIMEOUT_S, post, predict, prediction
from tests.running import Running


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


@pytest.mark.usefixtures("same_workers")
def test_streams_in_a_batch_with_others(server: Running, jpeg: bytes) -> None:
    """The handlers set a header without which a streamed answer ends the worker."""

    def stream() -> list[bytes]:
        request = prediction("resnet101", data=jpeg)
        answers = server.grpc.StreamPredictions(request, timeout=TIMEOUT_S)
        return [answer.prediction for answer in answers]

    with ThreadPoolExecutor(14) as pool:
        streams = [pool.submit(stream) for _ in range(4)]
        unary = [pool.submit(predict, server, "resnet101", data=jpeg) for _ in range(6)]
        rest = [pool.submit(post, server, "resnet101", data=jpeg) for _ in range(4)]
        for call in streams:
            [answer] = call.result()
            assert len(json.loads(answer)["predictions"]) == 5
        assert all(b"predictions" in answer.result() for answer in unary)
        for response in rest:
            assert response.result().status_code == 200
            assert "ts_stream_next" not in response.result().headers
