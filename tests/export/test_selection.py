"""Which networks an export takes, and what happens if the weights of one cannot be downloaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from export import checkpoints, pipeline
from export.__main__ import _parse, main
from export.checkpoints import Loaded
from export.errors import ExportError, WeightsUnavailable
from export.networks import find, registered
from export.pipeline import Job, Report

OWN = Path(__file__).parents[1] / "networks"


@pytest.mark.parametrize(
    ("variables", "arguments", "weights"),
    [
        ({}, [], {"cyclegan": "pretrained", "resnet101": "pretrained"}),
        ({"RESNET101_WEIGHTS": "a.pth"}, [], {"resnet101": "a.pth"}),
        ({"RESNET101_LABELS": "a.txt"}, [], {"resnet101": "pretrained"}),
        ({"CYCLEGAN_PREPROCESS": "original"}, [], {"cyclegan": "pretrained"}),
        ({}, ["--resnet101", "a.pth"], {"resnet101": "a.pth"}),
        (
            {"RESNET101_WEIGHTS": "a.pth", "CYCLEGAN_WEIGHTS": "b.pth"},
            [],
            {"cyclegan": "b.pth", "resnet101": "a.pth"},
        ),
        (
            {"RESNET101_WEIGHTS": "a.pth"},
            ["--weights", "pretrained"],
            {"cyclegan": "pretrained", "resnet101": "a.pth"},
        ),
        (
            {"RESNET101_WEIGHTS": "a.pth"},
            ["cyclegan", "resnet101"],
            {"cyclegan": "pretrained", "resnet101": "a.pth"},
        ),
    ],
)
def test_options_of_one_network_select_it(
    variables: dict[str, str],
    arguments: list[str],
    weights: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    jobs, _ = _parse([*arguments, "--from-environment"])
    assert {job.network.name: job.weights for job in jobs} == weights


@pytest.mark.parametrize("fault", [None, ExportError("it turned NaN"), OSError(28, "full", "disk")])
def test_what_can_be_exported_without_a_network_is_exported(
    fault: Exception | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What failed does not hide what succeeded, nor one reason another."""

    def fetch(*_: object) -> Path:
        raise WeightsUnavailable("there is no network")

    def export(loaded: Loaded, *_: object) -> Report:
        if fault and loaded.network.name == "superres2x":
            raise fault
        file = tmp_path / loaded.network.name
        file.touch()
        return Report(file.name, "untrained", 1e-7, file, file, 1.0)

    monkeypatch.setattr(checkpoints, "fetch", fetch)
    monkeypatch.setattr(pipeline, "_export", export)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    own = [str(OWN / f"{name}.py") for name in ("tiny_classifier", "superres2x")]
    random = ["--tiny_classifier", "random", "--superres2x", "random"]
    arguments = ["export", "cyclegan", *own, *random, "--model-store", str(tmp_path / "store")]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 1
    printed = capsys.readouterr()
    assert re.search(r"^tiny_classifier +untrained ", printed.out, re.MULTILINE)
    assert bool(re.search(r"^superres2x +untrained ", printed.out, re.MULTILINE)) is (fault is None)
    assert printed.err.startswith("error: cyclegan: there is no network, or\n")
    assert "make export NETWORK=cyclegan WEIGHTS=PATH" in printed.err
    if fault:
        reason = "it turned NaN" if isinstance(fault, ExportError) else "full: disk"
        assert printed.err.splitlines()[-1] == reason


def test_a_wrong_checkpoint_does_not_hide_what_cannot_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> Path:
        raise WeightsUnavailable("there is no network")

    monkeypatch.setattr(checkpoints, "fetch", fetch)
    jobs = [Job(registered()["cyclegan"]), Job(find(str(OWN / "tiny_classifier.py")), "no.pth")]
    with pytest.raises(ExportError, match=r"(?s)^cyclegan: there is no network.*no checkpoint at"):
        pipeline.export(jobs, tmp_path)
