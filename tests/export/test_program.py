"""The .pt2 equals the .pt at any size and is proved; networks without one are exported too."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from export import program
from export.networks import find, registered
from export.pipeline import Job, export
from export.prove import eager_cases, prove_package
from export.trace import trace
from handlers.metadata import Golden, Metadata

pytestmark = pytest.mark.slow

OWN = Path(__file__).parents[1] / "networks"

# The export itself proves none of these shapes.
SHAPES = [(3, 3, 64, 80), (1, 3, 100, 132)]
GOLDEN = ("golden_input.f32", "golden_output.f32")


@pytest.mark.parametrize("name", registered())
def test_it_answers_as_the_pt_does_at_any_size(name: str, model_store: Path) -> None:
    traced = torch.jit.load(model_store / f"{name}.pt")
    exported = torch.export.load(model_store / f"{name}.pt2").module()
    seed = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for shape in SHAPES:
            x = torch.rand(shape, generator=seed)
            expected = traced(x)
            assert (exported(x) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", registered())
def test_it_has_the_extra_files_of_the_pt(name: str, model_store: Path) -> None:
    expected: dict[str, Any] = dict.fromkeys(("model.json", *GOLDEN), b"")
    torch.jit.load(model_store / f"{name}.pt", _extra_files=expected)
    actual = {"model.json": ""}
    torch.export.load(model_store / f"{name}.pt2", extra_files=actual)
    assert json.loads(actual["model.json"]) == json.loads(expected["model.json"])
    for file in GOLDEN:
        assert base64.b64decode(actual[f"{file}.base64"]) == expected[file]


def test_the_archive_does_not_contain_it(model_store: Path) -> None:
    with zipfile.ZipFile(model_store / "cyclegan.mar") as mar:
        assert not [name for name in mar.namelist() if name.endswith(".pt2")]


def test_changed_weights_fail_the_proof(tmp_path: Path) -> None:
    loaded = Job(find(str(OWN / "superres2x.py")), "random").load()
    sound, changed = tmp_path / "sound.pt2", tmp_path / "changed.pt2"
    traced = trace(loaded, tmp_path / "sound.pt")
    shapes = Golden(tuple(traced.golden.input.shape), tuple(traced.golden.output.shape))
    spec, weights = loaded.spec, loaded.weights
    metadata = Metadata(spec.name, spec, weights, shapes, {}, {}, torch.__version__)
    assert program.save(loaded, traced, metadata, sound) == ""
    files = {"model.json": ""}
    exported = torch.export.load(sound, extra_files=files)
    exported.state_dict["body.0.bias"].data.add_(0.01)
    torch.export.save(exported, changed, extra_files=files)
    cases = eager_cases(loaded)
    assert prove_package(cases, sound)["worst"] <= 1e-4
    assert prove_package(cases, changed)["failed"].startswith("differs from eager PyTorch by")


def test_a_network_that_torch_export_cannot_take(tmp_path: Path) -> None:
    """Its .pt is made all the same, and the .pt2 of an earlier export goes."""
    own, store = tmp_path / "mine.py", tmp_path / "store"
    pt2 = store / "superres2x.pt2"
    text = (OWN / "superres2x.py").read_text()
    own.write_text(text)
    lines: list[str] = []

    def make() -> None:
        job = Job(find(str(own)), "random")
        export([job], store, progress=lambda _name, _s, line: lines.append(line))

    make()
    pt2.unlink()
    make()
    assert pt2.is_file(), "a .pt2 that is missing is made again"
    clamped = "return doubled.clamp(0, 1)"
    assert clamped in text
    pt2.with_suffix(".aoti.pt2").write_text("compiled from the .pt2")
    own.write_text(text.replace(clamped, f"{clamped} if doubled.max() < 1e9 else doubled"))
    make()
    assert not pt2.exists()
    assert not pt2.with_suffix(".aoti.pt2").exists()
    receipt = json.loads((store / "superres2x.json").read_text())
    assert set(receipt["pt2"]) == {"failed"}
    assert f"no superres2x.pt2: {receipt['pt2']['failed']}" in lines
    assert receipt["pt2"]["failed"].startswith("torch.export: ")
    assert "\n" not in receipt["pt2"]["failed"]
    assert "unchanged: the .pt is kept" not in lines
    make()
    assert "unchanged: the .pt is kept" in lines
