"""Exports of networks that are not the bundle's: torchvision's, and users' own files."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from export.__main__ import _parse, main
from export.errors import ExportError
from export.networks import find
from export.pipeline import Job, export
from handlers.metadata import Metadata

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OWN = ROOT / "tests" / "networks"

Run = Callable[..., subprocess.CompletedProcess[str]]


def _artefacts(store: Path) -> set[str]:
    return {path.name for path in store.iterdir() if path.name != ".lock"}


def test_a_classifier_of_torchvision(tmp_path: Path) -> None:
    """A ViT takes one size only, and is traced and proved at that size."""
    name = "vit_b_32"
    network = find(name)
    [report] = export([Job(network, "random")], tmp_path)
    assert report.worst <= 1e-4
    assert _artefacts(tmp_path) == {f"{name}.{suffix}" for suffix in ("pt", "pt2", "json", "mar")}
    metadata = json.loads((tmp_path / f"{name}.json").read_text())
    sizes = network.input_sizes(network.spec())
    every = (sizes.golden, *sizes.proof, sizes.gate)
    shapes = [[n, 3, height, width] for n, height, width in every]
    assert [case["shape"] for case in metadata["proof"]["cases"]] == shapes
    n, height, width = sizes.golden
    assert metadata["golden"]["input_shape"] == [n, 3, height, width]
    assert metadata["network"] == name


def _checkpoint(path: Path) -> Path:
    """A checkpoint of the tiny classifier with five classes."""
    network = find(str(OWN / "tiny_classifier.py"))
    torch.save(network.build(network.spec(labels=tuple("abcde"))).state_dict(), path)
    return path


def test_options_of_one_network_among_several(run: Run, tmp_path: Path) -> None:
    networks = [OWN / "tiny_classifier.py", OWN / "superres2x.py"]
    arguments = [*networks, "--weights", "random", "--model-store", tmp_path / "store"]
    variable = {"TINY_CLASSIFIER_WEIGHTS": _checkpoint(tmp_path / "mine.pth")}
    done = run("export", *arguments, "--from-environment", **variable)
    assert done.returncode == 0, done.stderr
    assert "5 classes without names: TINY_CLASSIFIER_LABELS=FILE gives them" in done.stdout
    picture = json.loads((tmp_path / "store" / "superres2x.json").read_text())
    assert picture["weights"]["name"] == "untrained"
    assert picture["golden"]["output_shape"] == [1, 3, 128, 128]
    assert picture["precisions"]["float16"]["passed"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["no_such_network"], "no network is called 'no_such_network'"),
        (["--", "no_such_network"], "no network is called 'no_such_network'"),
        (["--from-environment", "no_such_network"], "no network is called 'no_such_network'"),
        (["no/such.py"], "no/such.py: there is no such file"),
        ([OWN / "superres2x.py"], "superres2x has no published checkpoint"),
        ([OWN / "superres2x.py", "--weights", "no.pth"], "no checkpoint at no.pth"),
        ([OWN / "superres2x.py", "--labels", "x", "--weights", "random"], "it takes no labels"),
        (
            [OWN / "superres2x.py", "--preprocess", "v7"],
            "preprocessing must be one of plain, not v7",
        ),
        ([*OWN.glob("*.py"), "--labels", "x"], "need one network"),
        (["--labels", "x"], "need one network"),
    ],
)
def test_refusals(
    arguments: list[object],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    command_line = ["export", *map(str, arguments), "--model-store", str(store)]
    monkeypatch.setattr("sys.argv", command_line)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    try:
        status: object = main()
    except SystemExit as stopped:  # argparse
        status = stopped.code
    assert status in (1, 2)
    assert reason in capsys.readouterr().err
    assert not store.exists() or _artefacts(store) == set()


def _variant(folder: Path, old: str, new: str) -> Path:
    """The tiny classifier's file with a change."""
    text = (OWN / "tiny_classifier.py").read_text()
    assert old in text
    path = folder / "mine.py"
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("return TinyClassifier(len(spec.labels))", "raise OSError('no disk')", "OSError: no disk"),
        ("return TinyClassifier(len(spec.labels))", "return 5", "gave int, not an nn.Module"),
        ("return TinyClassifier(len(spec.labels))", "return TinyClassifier(9)", r"shape \(1, 9\)"),
        ('head="head"', 'head="fc"', "its head 'fc' is not an nn.Linear"),
        ("torch.relu(", "torch.none(", "untrained.. failed: AttributeError"),
        ("logits: torch.Tensor =", "assert len(x) != 1; logits =", "input of shape .1, 3, 64, 64."),
    ],
)
def test_faults_of_an_own_network(old: str, new: str, reason: str, tmp_path: Path) -> None:
    network = find(str(_variant(tmp_path, old, new)))
    with pytest.raises(ExportError, match=reason):
        export([Job(network, "random")], tmp_path / "store")
    assert _artefacts(tmp_path / "store") == set()


def test_a_change_of_the_own_file_is_exported(tmp_path: Path) -> None:
    lines: list[str] = []
    for old, new in (("resize=72", "resize=72"), ("resize=72", "resize=72"), ("relu", "tanh")):
        network = find(str(_variant(tmp_path, old, new)))
        job = Job(network, "random")
        export([job], tmp_path / "store", progress=lambda _name, _s, text: lines.append(text))
    assert lines.count("unchanged: the .pt is kept") == 1
    assert len([line for line in lines if line.startswith("traced, ") and "MB" in line]) == 2


def test_the_example_in_the_docs(tmp_path: Path) -> None:
    page = (ROOT / "docs/your-model.md").read_text()
    blocks = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    [text] = [block for block in blocks if "NETWORK" in block]
    (tmp_path / "pets.py").write_text(text)
    [report] = export([Job(find(str(tmp_path / "pets.py")), "random")], tmp_path / "store")
    assert report.name == "pets"
    written = json.loads((tmp_path / "store" / "pets.json").read_text())
    fields = {key: written[key] for key in Metadata.__dataclass_fields__}
    assert Metadata.from_json(json.dumps(fields)).spec.labels == ("cat", "dog", "horse")


@pytest.mark.parametrize(
    ("options", "weights"), [([], "random"), (["--from-environment"], "a.pth")]
)
def test_the_environment_counts_only_if_asked_for(
    options: list[str], weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLEGAN_WEIGHTS", "a.pth")
    monkeypatch.setenv("CYCLEGAN_PREPROCESS", "original")
    jobs, _ = _parse(["cyclegan", "--weights", "random", *options])
    assert [(job.weights, job.variant) for job in jobs] == [
        (weights, "original" if options else None)
    ]


def test_make_export_passes_the_environment() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "export"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "-m export --from-environment" in done.stdout
