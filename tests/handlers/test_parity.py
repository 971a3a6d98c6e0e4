"""The handler's answer equals eager PyTorch's, on our preprocessing and on torchvision's.

float32 must match closely, bfloat16 within the tolerances of the gate at export.
"""

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

from export.checkpoints import untrained
from export.networks import registered
from handlers.pictures.resample import resample
from handlers.torchserve import Handler
from tests.handlers.support import Predict, Save, body, form
from tests.tensors import to_tensor

# Eager PyTorch's and the handler's picture, ``(3, H, W)``, from 0 to 255.
Translate = Callable[[Handler], tuple[torch.Tensor, torch.Tensor]]

# Tolerances in bfloat16: of a probability, and the mean of a picture in 8-bit steps.
PROBABILITY_SHIFT = 0.05
PICTURE_STEPS = 3.0

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
    saved: Save,
    name: str,
) -> None:
    picture = photographs[name]
    ((status, headers, text),) = predict(resnet, body(saved(picture)))
    assert (status, headers["content-type"]) == (200, "application/json")
    predictions = json.loads(text)["predictions"]
    theirs = WEIGHTS.transforms()(picture)
    spec = resnet.service.metadata.spec
    # Single samples of the two preprocessings differ by an 8-bit step.
    for tensor, tolerance in (
        (to_tensor(spec, resample(spec, picture)), 1e-4),
        (theirs, 2e-3),
    ):
        expected, classes = probabilities(eager_resnet, tensor).topk(5)
        assert [p["class_id"] for p in predictions] == classes.tolist()
        assert [p["label"] for p in predictions] == [WEIGHTS.meta["categories"][i] for i in classes]
        shares = [p["probability"] for p in predictions]
        assert shares == pytest.approx(expected.tolist(), abs=tolerance)


def test_all_classes_are_ranked_and_sum_to_one(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    ((_, _, text),) = predict(resnet, form(data=chelsea, top_k=b"1000"))
    predictions = json.loads(text)["predictions"]
    values = [p["probability"] for p in predictions]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert sorted(p["class_id"] for p in predictions) == list(range(1000))


@pytest.fixture(scope="module")
def translate(
    eager_generator: nn.Module,
    photographs: dict[str, Image.Image],
    saved: Save,
    predict: Predict,
) -> Translate:
    """Translates a small photograph by eager PyTorch and by a handler."""
    picture = photographs["chelsea"]

    def both(handler: Handler) -> tuple[torch.Tensor, torch.Tensor]:
        spec = handler.service.metadata.spec
        with torch.inference_mode():
            tensor = to_tensor(spec, resample(spec, picture, resize=64))
            exact = (eager_generator(tensor.unsqueeze(0))[0] + 1) / 2 * 255
        ((status, headers, file),) = predict(handler, form(data=saved(picture), size=b"64"))
        assert (status, headers["content-type"]) == (200, "image/png")
        with Image.open(io.BytesIO(file)) as image:
            served = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        assert served.shape == exact.shape
        return exact, served

    return both


def test_the_picture_equals_eager_pytorch(cyclegan: Handler, translate: Translate) -> None:
    exact, served = translate(cyclegan)
    assert (served - exact).abs().max() <= 1


def test_classes_in_bfloat16_are_close_and_do_not_tie(
    bfloat16_resnet: Handler,
    predict: Predict,
    eager_resnet: nn.Module,
    photographs: dict[str, Image.Image],
    saved: Save,
) -> None:
    replies = predict(bfloat16_resnet, *(body(saved(p)) for p in photographs.values()))
    assert [status for status, _, _ in replies] == [200] * len(photographs)
    spec = bfloat16_resnet.service.metadata.spec
    for (_, _, text), picture in zip(replies, photographs.values(), strict=True):
        exact = probabilities(eager_resnet, to_tensor(spec, resample(spec, picture)))
        predictions = json.loads(text)["predictions"]
        for prediction in predictions:
            expected = exact[prediction["class_id"]].item()
            assert prediction["probability"] == pytest.approx(expected, abs=PROBABILITY_SHIFT)
        first, second = exact.topk(2).values.tolist()
        if first - second > 2 * PROBABILITY_SHIFT:
            assert predictions[0]["class_id"] == exact.argmax().item()
        # Logits with 8 significant bits would give equal probabilities.
        assert len({p["probability"] for p in predictions}) == len(predictions)


def test_the_picture_in_bfloat16_is_close(bfloat16_cyclegan: Handler, translate: Translate) -> None:
    exact, served = translate(bfloat16_cyclegan)
    assert 0 < (served - exact).abs().mean() <= PICTURE_STEPS
