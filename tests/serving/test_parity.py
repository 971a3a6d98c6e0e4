"""The server answers as eager PyTorch does, in float32.

``tests/handlers/test_parity.py`` tests the handlers with more pictures and in bfloat16.
"""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests import eager
from tests.routes import post, predict
from tests.running import Running


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_top_5_of_rest_grpc_and_eager(
    float32_server: Running, photographs: dict[str, Image.Image]
) -> None:
    photograph = png(photographs["coffee"])
    expected = eager.classified(photographs["coffee"], 5)
    rest = post(float32_server, "resnet101", data=photograph).content
    for answer in (rest, predict(float32_server, "resnet101", data=photograph)):
        predictions = json.loads(answer)["predictions"]
        assert [p["label"] for p in predictions] == [label for label, _ in expected]
        assert [p["label"] for p in predictions] == [
            eager.LABELS[p["class_id"]] for p in predictions
        ]
        # The two resizes differ by one 8-bit step in a few samples of the input.
        probabilities = [p["probability"] for p in predictions]
        assert probabilities == pytest.approx([p for _, p in expected], abs=2e-3)


def test_the_picture_equals_eager(
    float32_server: Running, photographs: dict[str, Image.Image]
) -> None:
    answer = post(float32_server, "cyclegan", data=png(photographs["astronaut"])).content
    served = np.asarray(Image.open(io.BytesIO(answer)), dtype=np.float32)
    assert np.abs(served - eager.translated(photographs["astronaut"])).max() <= 1
