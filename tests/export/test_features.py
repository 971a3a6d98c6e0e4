"""A classifier's features before its last layer: the task embed at the export."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from export import __main__ as command
from export import gate
from export.archive import exported_network
from export.checkpoints import _without_head, load
from export.errors import ExportError
from export.gate import Case, judge, judge_float32
from export.int8.options import Int8Options
from export.networks import find
from export.trace import trace

NETWORKS = Path(__file__).parents[1] / "networks"
TINY = str(NETWORKS / "tiny_classifier.py")
EMBED = find(TINY, "embed")
SPEC = load(EMBED, "random").spec


def test_the_classifier_and_its_features_have_two_names() -> None:
    classifier, features = find("resnet101"), find("resnet101", "embed")
    assert (classifier.name, classifier.output) == ("resnet101", "classes")
    assert (features.name, features.task, features.output) == (
        "resnet101_embed",
        "embed",
        "features",
    )
    assert features.checkpoints == classifier.checkpoints
    assert features.command == "make export NETWORK=resnet101 TASK=embed"
    assert find("resnet101", "classify") == classifier


@pytest.mark.parametrize(
    ("reference", "task", "reason"),
    [
        ("cyclegan", "embed", "cyclegan has the task translate, and cannot have embed"),
        ("resnet101", "translate", "resnet101 has the task classify, and cannot have translate"),
        ("resnet101", "embedding", "no task 'embedding': classify, embed, translate"),
    ],
)
def test_other_tasks_are_refused(reference: str, task: str, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        find(reference, task)


@pytest.mark.parametrize(
    ("name", "pooled"),
    [
        ("resnet18", "avgpool"),
        ("mobilenet_v3_small", "classifier.1"),
        ("squeezenet1_1", "features"),
    ],
)
def test_the_features_are_the_input_of_the_last_layer(name: str, pooled: str) -> None:
    """As a hook in eager PyTorch sees them; squeezenet pools after its last layer."""
    network, seen = find(name, "embed"), list[torch.Tensor]()
    module = network.build(network.spec()).eval()
    layer = module.get_submodule(pooled)
    layer.register_forward_hook(lambda _, _inputs, output: seen.append(output))
    with torch.no_grad():
        classified = module(torch.rand(2, 3, 64, 64))
        features = _without_head(network, module)(torch.rand(2, 3, 64, 64))
    assert classified.shape == (2, 1000)
    torch.testing.assert_close(
        features, seen[-1].flatten(2).mean(2) if seen[-1].ndim > 2 else seen[-1]
    )


def test_a_checkpoint_of_another_number_of_classes_gives_features(tmp_path: Path) -> None:
    torch.save(find(TINY).build(find(TINY).spec(labels=("x",) * 7)).state_dict(), tmp_path / "7.pt")
    loaded = load(EMBED, str(tmp_path / "7.pt"))
    assert loaded(torch.rand(2, 3, 64, 64)).shape == (2, 16)
    assert loaded.spec.labels == ()
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(ExportError, match="has no classes, so it takes no labels"):
        load(EMBED, str(tmp_path / "7.pt"), labels=tmp_path / "labels.txt")


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_backbone_without_the_last_layer_gives_features(prefix: str, tmp_path: Path) -> None:
    whole = find(TINY).build(find(TINY).spec()).state_dict()
    torch.save(whole, tmp_path / "whole.pt")
    backbone = {f"{prefix}{key}": whole[key] for key in whole if not key.startswith("head.")}
    beside = {"epoch": torch.tensor(3)} if prefix else {}
    torch.save(backbone | beside, tmp_path / "backbone.pt")
    picture = torch.rand(2, 3, 64, 64)
    expected = load(EMBED, str(tmp_path / "whole.pt"))(picture)
    assert torch.equal(load(EMBED, str(tmp_path / "backbone.pt"))(picture), expected)
    with pytest.raises(ExportError, match=r"this network:\n  missing    head\.weight"):
        load(find(TINY), str(tmp_path / "backbone.pt"))


def test_a_turned_vector_fails_the_gate_and_a_longer_one_does_too() -> None:
    exact = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    angle = torch.tensor(gate.COSINE).acos()
    for share, passed in ((0.99, True), (1.01, False)):
        turned = exact.clone()
        turned[0] = 3 * torch.stack([(share * angle).cos(), (share * angle).sin()])
        assert judge(SPEC, exact, turned)["passed"] is passed
        longer = exact * torch.tensor([[1 + share * gate.LENGTH_ERROR], [1.0]])
        assert judge(SPEC, exact, longer)["passed"] is passed
        case, other = Case(exact, exact), exact + 3 * share * gate.EXACT_FEATURES
        assert judge_float32(SPEC, [case], [other])["passed"] is passed


class Unpooled(nn.Module):
    """Gives ``(N, 3, H, W)``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_an_output_that_is_no_vector_is_refused(tmp_path: Path) -> None:
    loaded = load(EMBED, "random")
    unpooled = type(loaded)(loaded.network, Unpooled(), loaded.spec, loaded.weights)
    with pytest.raises(ExportError, match=r"needs \(1, 'features'\)"):
        trace(unpooled, tmp_path / "unpooled.pt")


def test_int8_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="tiny_classifier_embed gives features, which have no"):
        Int8Options(tmp_path).read(SPEC)


def test_the_command_needs_a_network_for_the_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["export", "--task", "embed"])
    assert command.main() == 1
    assert "TASK needs NETWORK=NAME" in capsys.readouterr().err


def test_the_command_reads_the_options_of_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_CLASSIFIER_EMBED_WEIGHTS", "pets.pth")
    jobs, _ = command._parse(["--from-environment", "--task", "embed", TINY])
    assert [(job.network.name, job.weights) for job in jobs] == [
        ("tiny_classifier_embed", "pets.pth")
    ]


def test_the_archive_is_rebuilt_from_the_features(tmp_path: Path) -> None:
    receipt = {"network": TINY, "spec": {"task": "embed"}}
    (tmp_path / "tiny_classifier_embed.json").write_text(json.dumps(receipt))
    network = exported_network(tmp_path / "tiny_classifier_embed.pt")
    assert (network.name, network.task) == ("tiny_classifier_embed", "embed")
