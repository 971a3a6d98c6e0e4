"""The record in the ``.pt``: JSON and back, and a cheap import."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.metadata import Golden, Metadata, Spec, Weights
from tests.specs import CYCLEGAN, RESNET101

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("spec", [RESNET101, CYCLEGAN], ids=lambda spec: spec.name)
def test_json_restores_an_equal_record(spec: Spec) -> None:
    record = Metadata(
        name=spec.name,
        spec=dataclasses.replace(spec, labels=("tench", 'a "quoted" name', "façade")),
        weights=Weights("untrained", "a test", False, None, None),
        golden=Golden((1, 3, 8, 8), (1, 3)),
        precisions={"bfloat16": {"passed": True, "summary": "fine"}},
        engines={"openvino": {"passed": False, "summary": "it cannot be converted"}},
        torch="2.11.0",
    )
    assert Metadata.from_json(json.dumps(record.to_map())) == record


@pytest.mark.parametrize("change", [{"crops": 224}, None])
def test_missing_and_unknown_fields_are_refused(change: dict[str, int] | None) -> None:
    unknown = dataclasses.asdict(CYCLEGAN) | (change or {})
    with pytest.raises(TypeError):
        Spec.from_map(unknown if change else {"mean": [0], "std": [1], "labels": []})


def test_importing_the_metadata_does_not_import_torch() -> None:
    code = "import sys, handlers.metadata; print(sorted({'torch', 'PIL', 'ts'} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]"
