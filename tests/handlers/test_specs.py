from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from torchvision.models import ResNet101_Weights

from handlers.specs import CYCLEGAN, RESNET101, RESNET101_V2, SPECS, ModelSpec

ROOT = Path(__file__).parents[2]
EVERY = [spec for variants in SPECS.values() for spec in variants.values()]


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: f"{spec.name}-{spec.variant}")
def test_json_brings_back_the_same_value(spec: ModelSpec) -> None:
    labelled = dataclasses.replace(spec, labels=("tench", 'a "quoted" name', "façade"))
    assert ModelSpec.from_json(labelled.to_json()) == labelled
    assert ModelSpec.from_json(labelled.to_json().encode()) == labelled


@pytest.mark.parametrize("text", ['{"mean": [0], "std": [1], "labels": []}', None])
def test_missing_and_unknown_fields_are_refused(text: str | None) -> None:
    unknown = CYCLEGAN.to_json().replace('"crop"', '"crops"')
    with pytest.raises(TypeError):
        ModelSpec.from_json(text or unknown)


def test_importing_the_specs_does_not_import_torch() -> None:
    code = "import sys, handlers.specs; print(sorted({'torch', 'PIL', 'ts'} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]"


def test_the_first_variant_of_each_model_is_its_default() -> None:
    assert {name: next(iter(variants.values())) for name, variants in SPECS.items()} == {
        "resnet101": RESNET101,
        "cyclegan": CYCLEGAN,
    }


def test_every_specification_is_found_under_its_own_names() -> None:
    for name, variants in SPECS.items():
        for variant, spec in variants.items():
            assert (spec.name, spec.variant) == (name, variant)


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        (RESNET101, ResNet101_Weights.IMAGENET1K_V1),
        (RESNET101_V2, ResNet101_Weights.IMAGENET1K_V2),
    ],
    ids=["v1", "v2"],
)
def test_resnet101_agrees_with_torchvision(spec: ModelSpec, weights: ResNet101_Weights) -> None:
    theirs = weights.transforms()
    assert [spec.resize] == theirs.resize_size
    assert [spec.crop] == theirs.crop_size
    assert list(spec.mean) == theirs.mean
    assert list(spec.std) == theirs.std
