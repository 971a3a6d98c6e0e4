"""Which networks an export takes, and what happens if the weights of one cannot be downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from export import checkpoints, pipeline
from export.__main__ import _parse
from export.errors import WeightsUnavailable
from export.networks import find, registered
from export.pipeline import Job, export

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


def test_what_can_be_exported_without_a_network_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> Path:
        raise WeightsUnavailable("there is no network")

    exported: list[str] = []
    monkeypatch.setattr(checkpoints, "fetch", fetch)
    monkeypatch.setattr(
        pipeline, "_export", lambda loaded, *_: exported.append(loaded.network.name)
    )
    jobs = [Job(registered()["cyclegan"]), Job(find(str(OWN / "tiny_classifier.py")), "random")]
    with pytest.raises(WeightsUnavailable) as refusal:
        export(jobs, tmp_path)
    assert exported == ["tiny_classifier"]
    first, *_, last = str(refusal.value).splitlines()
    assert first == "cyclegan: there is no network, or"
    assert "make export NETWORK=cyclegan WEIGHTS=PATH" in str(refusal.value)
    assert last == "tiny_classifier: exported all the same"
