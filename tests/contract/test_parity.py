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
from tests.routes import Server, post, predict
from tests.running import Running


@pytest.fixture
def exact(served: Server, request: pytest.FixtureRequest) -> Server:
    """``served`` in float32: the suite's server may have another precision."""
    is_gateway = isinstance(served, Running)
    return request.getfixturevalue("float32_server") if is_gateway else served


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_top_5_of_rest_grpc_and_eager(exact: Server, photographs: dict[str, Image.Image]) -> None:
    photograph = png(photographs["coffee"])
    expected = eager.classified(photographs["coffee"], 5)
    rest = post(exact, "resnet101", data=photograph).content
    for answer in (rest, predict(exact, "resnet101", data=photograph)):
        predictions = json.loads(answer)["predictions"]
        assert [p["label"] for p in predictions] == [label for label, _ in expected]
        assert [p["label"] for p in predictions] == [
            eager.LABELS[p["class_id"]] for p in predictions
        ]
        # The two resizes differ by one 8-bit step in a few samples of the input.
        probabilities = [p["probability"] for p in predictions]
        assert probabilities == pytest.approx([p for _, p in expected], abs=2e-3)


def test_the_picture_equals_eager(exact: Server, photographs: dict[str, Image.Image]) -> None:
    answer = post(exact, "cyclegan", data=png(photographs["astronaut"])).content
    served = np.asarray(Image.open(io.BytesIO(answer)), dtype=np.float32)
    assert np.abs(served - eager.translated(photographs["astronaut"])).max() <= 1
