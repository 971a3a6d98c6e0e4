"""The gate of reduced precision: its emulation errs as the real types do, and it refuses."""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from export import gate
from export.checkpoints import Loaded, untrained
from export.gate import emulated, gate_case, judge, judge_precisions
from export.networks import find, registered, torchvision
from export.simplify import simplified
from export.untrained import example_input
from handlers.metadata import Weights

CLASSIFIER = registered()["resnet101"]
GENERATOR = registered()["cyclegan"]


def _figures(module: nn.Module) -> dict[str, dict[str, Any]]:
    """The gate's figures for ``module`` in the place of ResNet-101."""
    weights = Weights("tiny", "here", False, None, None)
    loaded = Loaded(CLASSIFIER, module, CLASSIFIER.spec(), weights)
    example = example_input(loaded.spec, 1, 64, 64)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simple = simplified(module, CLASSIFIER.head)
        traced = torch.jit.trace(simple, example)
        return judge_precisions(loaded.spec, gate_case(loaded), simple, traced, example)


def test_a_checkpoint_of_one_class_is_judged() -> None:
    logits = torch.tensor([[2.0], [3.0]])
    assert judge(CLASSIFIER.spec(), logits, logits)["passed"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_emulation_errs_as_the_real_type_does(dtype: torch.dtype, cyclegan: nn.Module) -> None:
    x = example_input(GENERATOR.spec(), 1, 64, 64)
    network = simplified(cyclegan)
    with torch.inference_mode():
        exact = network(x)
        real = copy.deepcopy(network).to(dtype)(x.to(dtype)).float()
        errors = [(y - exact).abs().mean().item() for y in (real, emulated(network, dtype)(x))]
    assert errors[0] > 0
    assert errors[1] == pytest.approx(errors[0], rel=0.3)


@pytest.mark.slow
def test_a_badly_conditioned_network_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large gains in the residual blocks make each rounding count."""
    monkeypatch.setattr(torchvision, "RESIDUAL_GAIN", 0.7)
    figures = _figures(untrained(find("resnet50")))["bfloat16"]
    assert figures["passed"] is False
    assert figures["logits_error"] > 5 * gate.LOGITS_ERROR


class Head(nn.Module):
    """A classifier of two classes whose last layer is ``fc``."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        nn.init.constant_(self.conv.weight, weight)
        self.fc = nn.Linear(2, 2)
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.conv(x).mean((2, 3)))
        return logits


class ConstantInFloat32(Head):
    """The trace keeps the constant's type, so the convolution gets float32 in each precision."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + torch.ones(1))


def test_values_beyond_the_range_of_float16_fail() -> None:
    figures = _figures(Head(weight=60_000.0))
    assert figures["float16"] == {"passed": False, "summary": "values outside its range"}


def test_a_network_that_does_not_run_in_a_reduced_type_fails() -> None:
    for figures in _figures(ConstantInFloat32()).values():
        assert figures["passed"] is False
        assert "does not run in it" in figures["summary"]


def test_an_error_at_the_bar_passes_and_over_it_fails() -> None:
    classes, translation = CLASSIFIER.spec(), GENERATOR.spec()
    exact = torch.tensor([[3.0, 0.0, 0.0, 4.0]])
    at, over = exact * (1 + gate.LOGITS_ERROR * 0.999), exact * (1 + gate.LOGITS_ERROR * 1.001)
    assert gate.judge(classes, exact, at)["passed"] is True
    assert gate.judge(classes, exact, over)["passed"] is False
    picture, steps = torch.zeros(1, 3, 4, 4), gate.PICTURE_STEPS * 2 / 255
    assert gate.judge(translation, picture, picture + steps * 0.999)["passed"] is True
    assert gate.judge(translation, picture, picture + steps * 1.001)["passed"] is False
    half = dataclasses.replace(translation, output_range=(0.0, 1.0))
    assert gate.judge(half, picture, picture + steps / 2 * 0.999)["passed"] is True
    assert gate.judge(half, picture, picture + steps / 2 * 1.001)["passed"] is False


def test_another_first_class_fails_only_where_the_margin_is_clear() -> None:
    close = torch.tensor([[5.0, 4.99, 0.0]])
    clear = torch.tensor([[5.0, 4.9, 0.0]])
    swapped = [logits[:, [1, 0, 2]] for logits in (close, clear)]
    judged = [
        gate.judge(CLASSIFIER.spec(), a, b) for a, b in zip((close, clear), swapped, strict=True)
    ]
    assert [figures["top1_agrees"] for figures in judged] == [True, False]
    assert [figures["passed"] for figures in judged] == [True, False]


@pytest.mark.parametrize("name", registered())
def test_the_figures_are_beside_and_inside_the_artefact(name: str, model_store: Path) -> None:
    extra: dict[str, Any] = {"model.json": b""}
    torch.jit.load(model_store / f"{name}.pt", _extra_files=extra)
    inside = json.loads(extra["model.json"])["precisions"]
    beside = json.loads((model_store / f"{name}.json").read_text())["precisions"]
    assert inside == beside
    assert set(inside) == {"bfloat16", "float16"}
    assert all(figures["passed"] for figures in inside.values()), "untrained ones are conditioned"
