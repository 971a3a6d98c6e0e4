"""What the export command leaves: a .pt that is complete in itself, and the .json beside it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import ResNet101_Weights

from handlers.metadata import Spec
from tests.specs import CYCLEGAN, RESNET101, SPECS

# None of them is among the shapes that the export itself proves.
SHAPES = [(3, 3, 128, 160), (1, 3, 200, 132)]

# It must not find this project: -I leaves the working folder and PYTHONPATH out of sys.path.
STRANGER = """
import importlib.util, sys, warnings
warnings.simplefilter("ignore")
import torch
assert not any(map(importlib.util.find_spec, ("export", "handlers")))
inputs = torch.load(sys.argv[1], weights_only=True)
with torch.inference_mode():
    outputs = [[torch.jit.load(pt)(x) for x in inputs] for pt in sys.argv[3:]]
torch.save(outputs, sys.argv[2])
"""


def test_stranger_gets_the_answers_of_eager_pytorch(
    model_store: Path, resnet101: nn.Module, cyclegan: nn.Module, tmp_path: Path
) -> None:
    seed = torch.Generator().manual_seed(0)
    inputs = [torch.rand(shape, generator=seed) for shape in SHAPES]
    torch.save(inputs, tmp_path / "inputs")
    artefacts = [str(model_store / f"{name}.pt") for name in ("resnet101", "cyclegan")]
    command = [sys.executable, "-I", "-c", STRANGER, "inputs", "outputs", *artefacts]
    subprocess.run(command, cwd=tmp_path, check=True)
    answers = torch.load(tmp_path / "outputs", weights_only=True)
    for network, outputs in zip((resnet101, cyclegan), answers, strict=True):
        for picture, output in zip(inputs, outputs, strict=True):
            with torch.inference_mode():
                expected = network(picture)
            assert output.shape == expected.shape
            assert (output - expected).abs().max() <= 1e-4 * expected.abs().max()


def _extra_files(pt: Path) -> tuple[torch.jit.ScriptModule, dict[str, bytes]]:
    extra: dict[str, Any] = {"model.json": b"", "golden_input.f32": b"", "golden_output.f32": b""}
    return torch.jit.load(pt, _extra_files=extra), extra


@pytest.mark.parametrize("name", SPECS)
def test_artefact_reproduces_its_golden_example(name: str, model_store: Path) -> None:
    network, extra = _extra_files(model_store / f"{name}.pt")
    golden = json.loads(extra["model.json"])["golden"]
    example, expected = (
        torch.frombuffer(bytearray(extra[f"golden_{part}.f32"]), dtype=torch.float32).view(
            golden[f"{part}_shape"]
        )
        for part in ("input", "output")
    )
    with torch.inference_mode():
        output = network(example)
    assert (output - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert expected.std() > 0, "a constant answer proves nothing"


def _metadata(name: str, store: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(_extra_files(store / f"{name}.pt")[1]["model.json"])
    return metadata


@pytest.mark.parametrize(("name", "expected"), [("resnet101", RESNET101), ("cyclegan", CYCLEGAN)])
def test_specification_travels_whole(name: str, expected: Spec, model_store: Path) -> None:
    spec = Spec.from_map(_metadata(name, model_store)["spec"])
    categories = ResNet101_Weights.IMAGENET1K_V1.meta["categories"]
    labels = tuple(categories) if name == "resnet101" else ()
    assert spec.labels == labels
    assert Spec(**{**vars(spec), "labels": ()}) == expected


@pytest.mark.parametrize("name", SPECS)
def test_untrained_weights_say_so(name: str, model_store: Path) -> None:
    weights = _metadata(name, model_store)["weights"]
    assert weights["name"] == "untrained"
    assert weights["trained"] is False
    assert weights["sha256"] is None


@pytest.mark.parametrize("name", SPECS)
def test_json_beside_says_the_same_and_more(name: str, model_store: Path) -> None:
    pt = model_store / f"{name}.pt"
    inside, beside = _metadata(name, model_store), json.loads(pt.with_suffix(".json").read_text())
    assert {key: beside[key] for key in inside} == inside
    assert beside["pt"] == {
        "sha256": hashlib.sha256(pt.read_bytes()).hexdigest(),
        "bytes": pt.stat().st_size,
    }
    proof = beside["proof"]
    assert proof["worst"] <= proof["tolerance"]
    assert len(proof["cases"]) >= 3
