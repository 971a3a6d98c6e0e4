from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from torchvision.models import ResNet101_Weights

from export.networks import registered
from handlers.metadata import Spec
from tests.specs import CYCLEGAN, RESNET101, RESNET101_V2

ROOT = Path(__file__).parents[2]
EVERY = [network.spec(variant) for network in registered().values() for variant in network.variants]


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: f"{spec.name}-{spec.variant}")
def test_json_brings_back_the_same_value(spec: Spec) -> None:
    labelled = dataclasses.replace(spec, labels=("tench", 'a "quoted" name', "façade"))
    assert Spec.from_map(json.loads(json.dumps(dataclasses.asdict(labelled)))) == labelled


@pytest.mark.parametrize("change", [{"crops": 224}, None])
def test_missing_and_unknown_fields_are_refused(change: dict[str, int] | None) -> None:
    unknown = dataclasses.asdict(CYCLEGAN) | (change or {})
    with pytest.raises(TypeError):
        Spec.from_map(unknown if change else {"mean": [0], "std": [1], "labels": []})


def test_importing_the_specs_does_not_import_torch() -> None:
    code = "import sys, handlers.metadata; print(sorted({'torch', 'PIL', 'ts'} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]"


def test_the_first_variant_of_each_network_is_its_default() -> None:
    for network in registered().values():
        assert network.spec() == network.spec(next(iter(network.variants)))


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        (RESNET101, ResNet101_Weights.IMAGENET1K_V1),
        (RESNET101_V2, ResNet101_Weights.IMAGENET1K_V2),
    ],
    ids=["v1", "v2"],
)
def test_resnet101_agrees_with_torchvision(spec: Spec, weights: ResNet101_Weights) -> None:
    theirs = weights.transforms()
    assert [spec.resize] == theirs.resize_size
    assert [spec.crop] == theirs.crop_size
    assert list(spec.mean) == theirs.mean
    assert list(spec.std) == theirs.std
