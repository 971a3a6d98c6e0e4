"""What an export writes: a .pt that is complete in itself, and the .json beside it."""

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

from export.errors import ExportError
from export.networks import find, registered
from export.pipeline import Job, export
from handlers.metadata import Metadata

pytestmark = pytest.mark.slow

# The export itself proves none of these shapes.
SHAPES = [(3, 3, 128, 160), (1, 3, 200, 132)]

# -I keeps this project out of sys.path.
STANDALONE = """
import importlib.util, sys, warnings
warnings.simplefilter("ignore")
import torch
assert not any(map(importlib.util.find_spec, ("export", "handlers")))
inputs = torch.load(sys.argv[1], weights_only=True)
with torch.inference_mode():
    outputs = [[torch.jit.load(pt)(x) for x in inputs] for pt in sys.argv[3:]]
torch.save(outputs, sys.argv[2])
"""


def test_outputs_without_this_project_equal_eager_pytorch(
    model_store: Path, resnet101: nn.Module, cyclegan: nn.Module, tmp_path: Path
) -> None:
    seed = torch.Generator().manual_seed(0)
    inputs = [torch.rand(shape, generator=seed) for shape in SHAPES]
    torch.save(inputs, tmp_path / "inputs")
    artefacts = [str(model_store / f"{name}.pt") for name in ("resnet101", "cyclegan")]
    command = [sys.executable, "-I", "-c", STANDALONE, "inputs", "outputs", *artefacts]
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


@pytest.mark.parametrize("name", registered())
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


def _metadata(name: str, store: Path) -> Metadata:
    return Metadata.from_json(_extra_files(store / f"{name}.pt")[1]["model.json"])


@pytest.mark.parametrize("name", registered())
def test_metadata_is_complete(name: str, model_store: Path) -> None:
    metadata = _metadata(name, model_store)
    assert metadata.name == name
    assert metadata.spec == registered()[name].spec()
    assert metadata.weights.name == "untrained"
    assert metadata.weights.trained is False
    assert metadata.weights.sha256 is None


@pytest.mark.parametrize("name", registered())
def test_json_beside_is_the_metadata_and_how_the_export_went(name: str, model_store: Path) -> None:
    pt = model_store / f"{name}.pt"
    beside = json.loads(pt.with_suffix(".json").read_text())
    proof, inputs = beside.pop("proof"), beside.pop("inputs")
    assert beside.pop("network") == name
    assert beside.pop("int8_alone") is False
    packaged = beside.pop("pt2")
    assert packaged["sha256"] == hashlib.sha256(pt.with_suffix(".pt2").read_bytes()).hexdigest()
    assert packaged["proof"]["worst"] <= proof["tolerance"]
    assert beside.pop("pt") == {
        "sha256": hashlib.sha256(pt.read_bytes()).hexdigest(),
        "bytes": pt.stat().st_size,
    }
    assert len(inputs) == 64
    assert Metadata.from_json(json.dumps(beside)) == _metadata(name, model_store)
    assert beside == json.loads(_extra_files(pt)[1]["model.json"])
    assert proof["worst"] <= proof["tolerance"]
    assert len(proof["cases"]) >= 3


OWN = """
import threading
import torch
from torch import nn
from export.networks import Network, Preprocessing, Sizes

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        # Simplifying replaces the norm.
        mean, scale = self.norm.running_mean, self.norm.weight
        x = (self.norm(self.conv(x)) - mean[:, None, None]) * scale[:, None, None]
        return self.fc(x.mean((2, 3)))

NETWORK = Network(
    name="own", task="classify", build=lambda spec: Own(), head="fc", labels=("a", "b"),
    variants={"plain": Preprocessing(resize=64, crop=64)},
    sizes=Sizes(proof=((1, 64, 64), (3, 64, 96)), gate=(2, 64, 64)),
)
"""


def test_a_network_that_cannot_be_simplified_is_exported_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN)
    [report] = export([Job(find(str(own)), "random")], tmp_path / "store")
    assert report.worst <= 1e-4


def test_a_network_that_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN.replace("self.fc = ", "self.lock = threading.Lock(); self.fc = "))
    with pytest.raises(ExportError, match=r"cannot be copied.*lock"):
        export([Job(find(str(own)), "random")], tmp_path / "store")
