"""The handler's answer equals eager PyTorch's, on our tensors and on torchvision's.

Strictly in float32; in bfloat16 within what the gate at export allows. Both run on every CPU.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import ResNet101_Weights

from export.checkpoints import untrained
from export.networks import registered
from handlers.pictures.resample import resample
from handlers.torchserve import Handler
from tests.tensors import to_tensor

Reply = tuple[int, dict[str, str], bytes]
Predict = Callable[..., list[Reply]]

# In bfloat16: of a probability, and of a picture in 8-bit steps on average.
PROBABILITY_SHIFT = 0.05
PICTURE_STEPS = 3.0

REST = {"Host": "localhost:8080"}
WEIGHTS = ResNet101_Weights.IMAGENET1K_V1


@pytest.fixture(scope="module")
def eager_resnet() -> nn.Module:
    return untrained(registered()["resnet101"])


@pytest.fixture(scope="module")
def eager_generator() -> nn.Module:
    return untrained(registered()["cyclegan"])


def probabilities(network: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = network(tensor.unsqueeze(0))
        return output[0].softmax(0)


@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee"])
def test_top_5_equals_eager_pytorch(
    resnet: Handler,
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
    spec = resnet.service.metadata.spec
    # Where the transforms differ by an 8-bit step here and there, so may the probabilities.
    for tensor, tolerance in (
        (to_tensor(spec, resample(spec, picture)), 1e-4),
        (theirs, 2e-3),
    ):
        expected, classes = probabilities(eager_resnet, tensor).topk(5)
        assert [p["class_id"] for p in found] == classes.tolist()
        assert [p["label"] for p in found] == [WEIGHTS.meta["categories"][i] for i in classes]
        assert [p["probability"] for p in found] == pytest.approx(expected.tolist(), abs=tolerance)


def test_all_classes_are_ranked_and_sum_to_one(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    ((_, _, body),) = predict(resnet, ({"data": chelsea, "top_k": b"1000"}, REST))
    found = json.loads(body)["predictions"]
    values = [p["probability"] for p in found]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert sorted(p["class_id"] for p in found) == list(range(1000))


@pytest.fixture(scope="module")
def translations(
    eager_generator: nn.Module,
    photographs: dict[str, Image.Image],
    saved: Callable[..., bytes],
    predict: Predict,
) -> Callable[[Handler], tuple[torch.Tensor, torch.Tensor]]:
    """A small photograph by eager PyTorch and by a handler: ``(3, H, W)``, from 0 to 255."""
    picture = photographs["chelsea"]

    def both(handler: Handler) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode():
            tensor = to_tensor(
                handler.service.metadata.spec,
                resample(handler.service.metadata.spec, picture, resize=64),
            )
            exact = (eager_generator(tensor.unsqueeze(0))[0] + 1) / 2 * 255
        sent = {"data": saved(picture), "size": b"64"}
        ((status, headers, body),) = predict(handler, (sent, REST))
        assert (status, headers["content-type"]) == (200, "image/png")
        with Image.open(io.BytesIO(body)) as image:
            found = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        assert found.shape == exact.shape
        return exact, found

    return both


def test_the_picture_equals_eager_pytorch(cyclegan: Handler, translations: Any) -> None:
    exact, found = translations(cyclegan)
    assert (found - exact).abs().max() <= 1


def test_classes_in_bfloat16_are_close_and_do_not_tie(
    bfloat16_resnet: Handler,
    predict: Predict,
    eager_resnet: nn.Module,
    photographs: dict[str, Image.Image],
    saved: Callable[..., bytes],
) -> None:
    sent = [({"body": saved(picture)}, REST) for picture in photographs.values()]
    replies = predict(bfloat16_resnet, *sent)
    assert [status for status, _, _ in replies] == [200] * len(photographs)
    for (_, _, body), picture in zip(replies, photographs.values(), strict=True):
        spec = bfloat16_resnet.service.metadata.spec
        tensor = to_tensor(spec, resample(spec, picture))
        exact = probabilities(eager_resnet, tensor)
        found = json.loads(body)["predictions"]
        for prediction in found:
            expected = exact[prediction["class_id"]].item()
            assert prediction["probability"] == pytest.approx(expected, abs=PROBABILITY_SHIFT)
        first, second = exact.topk(2).values.tolist()
        if first - second > 2 * PROBABILITY_SHIFT:
            assert found[0]["class_id"] == exact.argmax().item()
        # Logits of 8 significant bits would give equal probabilities.
        assert len({p["probability"] for p in found}) == len(found)


def test_the_picture_in_bfloat16_is_close(bfloat16_cyclegan: Handler, translations: Any) -> None:
    exact, found = translations(bfloat16_cyclegan)
    assert 0 < (found - exact).abs().mean() <= PICTURE_STEPS
