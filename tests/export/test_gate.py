"""The gate of reduced precision: its emulation is like the real thing, and it bites."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from export import gate, untrained
from export.gate import emulated, measure
from export.models import Network
from export.simplify import simplified
from export.untrained import example_input
from tests.specs import CYCLEGAN, RESNET101, SPECS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_emulation_errs_as_the_real_type_does(dtype: torch.dtype, cyclegan: nn.Module) -> None:
    x = example_input(CYCLEGAN, 1, 64, 64)
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
    monkeypatch.setattr(untrained, "RESIDUAL_GAIN", 0.5)
    module = untrained.build("resnet101", 1000, 0).requires_grad_(False)
    figures = measure(Network(module, RESNET101, {}))["bfloat16"]
    assert figures["passed"] is False
    assert figures["logits_error"] > 5 * gate.LOGITS_ERROR


def test_values_beyond_the_range_of_float16_fail() -> None:
    conv = nn.Conv2d(3, 2, 1)
    nn.init.constant_(conv.weight, 60_000.0)
    module = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    figures = measure(Network(module.eval().requires_grad_(False), RESNET101, {}))
    assert figures["float16"] == {"passed": False, "summary": "values outside its range"}


def test_an_error_at_the_bar_passes_and_over_it_fails() -> None:
    exact = torch.tensor([[3.0, 0.0, 0.0, 4.0]])
    at, over = exact * (1 + gate.LOGITS_ERROR * 0.999), exact * (1 + gate.LOGITS_ERROR * 1.001)
    assert gate.judge("classes", exact, at)["passed"] is True
    assert gate.judge("classes", exact, over)["passed"] is False
    picture, steps = torch.zeros(1, 3, 4, 4), gate.PICTURE_STEPS * 2 / 255
    assert gate.judge("picture", picture, picture + steps * 0.999)["passed"] is True
    assert gate.judge("picture", picture, picture + steps * 1.001)["passed"] is False


def test_another_first_class_fails_only_where_the_margin_is_clear() -> None:
    close = torch.tensor([[5.0, 4.99, 0.0]])
    clear = torch.tensor([[5.0, 4.9, 0.0]])
    swapped = [logits[:, [1, 0, 2]] for logits in (close, clear)]
    judged = [gate.judge("classes", a, b) for a, b in zip((close, clear), swapped, strict=True)]
    assert [found["top1_agrees"] for found in judged] == [True, False]
    assert [found["passed"] for found in judged] == [True, False]


@pytest.mark.parametrize("name", SPECS)
def test_the_figures_are_beside_and_inside_the_artefact(name: str, model_store: Path) -> None:
    extra: dict[str, Any] = {"model.json": b""}
    torch.jit.load(model_store / f"{name}.pt", _extra_files=extra)
    inside = json.loads(extra["model.json"])["precisions"]
    beside = json.loads((model_store / f"{name}.json").read_text())["precisions"]
    assert inside == beside
    assert set(inside) == {"bfloat16", "float16"}
    assert all(figures["passed"] for figures in inside.values()), "untrained ones are conditioned"
