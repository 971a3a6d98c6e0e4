"""What the server answers is what eager PyTorch answers, in float32.

``tests/handlers/test_parity.py`` holds the handlers to it on more pictures and in bfloat16.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from torchvision.models import ResNet101_Weights
from torchvision.transforms import v2

from export.checkpoints import untrained
from export.networks import registered
from vision_client import inference_pb2

TIMEOUT_S = 60


def test_top_5_of_rest_grpc_and_eager(
    float32_server: Any, photographs: dict[str, Image.Image]
) -> None:
    server, photograph = float32_server, photographs["coffee"]
    buffer = io.BytesIO()
    photograph.save(buffer, "PNG")
    rest = requests.post(server.url("resnet101"), data=buffer.getvalue(), timeout=TIMEOUT_S).json()
    request = inference_pb2.PredictionsRequest(
        model_name="resnet101", input={"data": buffer.getvalue()}
    )
    grpc = json.loads(server.grpc.Predictions(request, timeout=TIMEOUT_S).prediction)
    preprocess = ResNet101_Weights.IMAGENET1K_V1.transforms()
    with torch.inference_mode():
        logits = untrained(registered()["resnet101"])(preprocess(photograph)[None])
    probabilities, classes = logits[0].softmax(0).topk(5)
    for answer in (rest, grpc):
        found = answer["predictions"]
        assert [p["class_id"] for p in found] == classes.tolist()
        # One 8-bit step in a few samples of the input separates the two resizes.
        assert [p["probability"] for p in found] == pytest.approx(probabilities.tolist(), abs=2e-3)


def test_the_picture_equals_eager(float32_server: Any, photographs: dict[str, Image.Image]) -> None:
    server, photograph = float32_server, photographs["astronaut"]
    buffer = io.BytesIO()
    photograph.save(buffer, "PNG")
    answer = requests.post(server.url("cyclegan"), data=buffer.getvalue(), timeout=TIMEOUT_S)
    preprocess = v2.Compose(
        [v2.Resize(256), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    with torch.inference_mode():
        output = untrained(registered()["cyclegan"])(preprocess(photograph)[None])[0]
    expected = ((output + 1) / 2 * 255).permute(1, 2, 0).numpy()
    served = np.asarray(Image.open(io.BytesIO(answer.content)), dtype=np.float32)
    assert np.abs(served - expected).max() <= 1
