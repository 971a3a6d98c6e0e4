"""The served answer equals eager PyTorch's, on our tensors and on torchvision's."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import ResNet101_Weights

from export.untrained import build
from handlers.base import ImageHandler
from handlers.resample import resample
from tests.tensors import to_tensor

Reply = tuple[int, dict[str, str], bytes]
Predict = Callable[..., list[Reply]]

REST = {"Host": "localhost:8080"}
WEIGHTS = ResNet101_Weights.IMAGENET1K_V1


@pytest.fixture(scope="module")
def eager_resnet() -> nn.Module:
    return build("resnet101", len(WEIGHTS.meta["categories"]), 0)


@pytest.fixture(scope="module")
def eager_generator() -> nn.Module:
    return build("cyclegan", 0, 0)


def probabilities(network: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = network(tensor.unsqueeze(0))
        return output[0].softmax(0)


@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee"])
def test_top_5_equals_eager_pytorch(
    resnet: ImageHandler,
    predict: Predict,
    eager_resnet: nn.Module,
    photographs: dict[str, Image.Image],
    saved: Callable[..., bytes],
    name: str,
) -> None:
    picture = photographs[name]
    ((status, headers, body),) = predict(resnet, ({"body": saved(picture)}, REST))
    assert (status, headers["content-type"]) == (200, "application/json")
    found = json.loads(body)["predictions"]
    theirs = WEIGHTS.transforms()(picture)
    # Where the transforms differ by an 8-bit step here and there, so may the probabilities.
    for tensor, tolerance in (
        (to_tensor(resnet.spec, resample(resnet.spec, picture)), 1e-4),
        (theirs, 2e-3),
    ):
        expected, classes = probabilities(eager_resnet, tensor).topk(5)
        assert [p["class_id"] for p in found] == classes.tolist()
        assert [p["label"] for p in found] == [WEIGHTS.meta["categories"][i] for i in classes]
        assert [p["probability"] for p in found] == pytest.approx(expected.tolist(), abs=tolerance)


def test_all_classes_are_ranked_and_sum_to_one(
    resnet: ImageHandler, predict: Predict, chelsea: bytes
) -> None:
    ((_, _, body),) = predict(resnet, ({"data": chelsea, "top_k": b"1000"}, REST))
    found = json.loads(body)["predictions"]
    values = [p["probability"] for p in found]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert sorted(p["class_id"] for p in found) == list(range(1000))


@pytest.mark.parametrize(("name", "size"), [("astronaut", 256), ("chelsea", 64)])
def test_the_picture_equals_eager_pytorch(
    cyclegan: ImageHandler,
    predict: Predict,
    eager_generator: nn.Module,
    photographs: dict[str, Image.Image],
    saved: Callable[..., bytes],
    name: str,
    size: int,
) -> None:
    picture = photographs[name]
    with torch.inference_mode():
        tensor = to_tensor(cyclegan.spec, resample(cyclegan.spec, picture, resize=size))
        exact = (eager_generator(tensor.unsqueeze(0))[0] + 1) / 2 * 255
    sent = {"data": saved(picture), "size": str(size).encode()}
    ((status, headers, body),) = predict(cyclegan, (sent, REST))
    assert (status, headers["content-type"]) == (200, "image/png")
    with Image.open(io.BytesIO(body)) as image:
        served = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert served.shape == exact.shape
    assert (served - exact).abs().max() <= 1
