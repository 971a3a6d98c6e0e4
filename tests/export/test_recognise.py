"""A checkpoint of another network is refused with the command that exports it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from export.checkpoints import load
from export.errors import ExportError
from export.networks import Network, StateDict, find, registered, torchvision
from export.recognise import recognised

OWN = Path(__file__).parents[1] / "networks"

Save = Callable[[object], Path]


def _checkpoint(name: str, classes: int) -> StateDict:
    """Zeros without memory: a state dict of torchvision's ``name`` with that many classes."""
    head = f"{find(name).head}."
    state = torchvision.skeleton(name).state_dict()
    return {
        key: torch.zeros(1).expand(classes if key.startswith(head) else len(v), *v.shape[1:])
        if v.ndim
        else torch.tensor(1)
        for key, v in state.items()
    }


def _renamed(state: StateDict, old: str, new: str) -> StateDict:
    return {key.replace(old, new): tensor for key, tensor in state.items()}


@pytest.fixture(scope="module")
def network() -> Network:
    return find(str(OWN / "tiny_classifier.py"))


def _refusal(network: Network, path: Path, labels: Path | None = None) -> str:
    with pytest.raises(ExportError) as refusal:
        load(network, str(path), labels=labels)
    return str(refusal.value)


def test_another_resnet(save: Save, tmp_path: Path) -> None:
    """The example of a person who has fine-tuned a ResNet-50."""
    labels = tmp_path / "my pets.txt"
    labels.write_text("\n".join("abcdefg"))
    path = save({"model": _checkpoint("resnet50", 7)})
    assert _refusal(registered()["resnet101"], path, labels) == (
        f"{path} does not fit resnet101: it looks like resnet50 with 7 classes:\n"
        f"  make export NETWORK=resnet50 WEIGHTS={path} LABELS='{labels}'"
    )


def test_another_resnet_for_features(save: Save) -> None:
    state = {k: v for k, v in _checkpoint("resnet50", 7).items() if not k.startswith("fc.")}
    for path in (save(state), save(_checkpoint("resnet50", 7))):
        refusal = _refusal(find("resnet18", "embed"), path)
        assert "resnet18_embed: it looks like resnet50" in refusal
        assert refusal.endswith(f":\n  make export NETWORK=resnet50 TASK=embed WEIGHTS={path}")


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vgg11", "convnext_tiny"])
def test_another_layer_is_not_taken_for_the_missing_head(name: str) -> None:
    """Their heads are classifier.3, .6 and .2, after other layers of the classifier."""
    head = find(name).head
    state = torchvision.skeleton(name).state_dict()
    found = recognised({f"net.{k}": v for k, v in state.items() if not k.startswith(f"{head}.")})
    assert found
    assert found[0].name == name


def test_features_of_the_same_network_are_not_called_another(save: Save) -> None:
    path = save(_checkpoint("resnet18", 7) | {"fc.weight": torch.zeros(7, 9)})
    assert "this network:\n  misshapen  fc.weight" in _refusal(find("resnet18", "embed"), path)


def test_a_head_without_bias(network: Network, save: Save) -> None:
    state = _checkpoint("resnet18", 7)
    del state["fc.bias"]
    path = save(state)
    assert "looks like resnet18 with 7 classes:" in _refusal(network, path)
    loaded = load(find("resnet18"), str(path))
    assert loaded(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert loaded.note == "fc without bias"


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_prefixes(prefix: str, network: Network, save: Save) -> None:
    state = {f"{prefix}{key}": tensor for key, tensor in _checkpoint("resnet18", 7).items()}
    assert "looks like resnet18 with 7 classes:" in _refusal(network, save(state))


def test_a_head_in_a_sequential(network: Network, save: Save) -> None:
    state = _renamed(_checkpoint("vit_b_16", 7), "heads.head.", "heads.1.")
    assert "looks like vit_b_16 with 7 classes:" in _refusal(network, save(state))


def test_a_generator(network: Network, save: Save) -> None:
    with torchvision.WithoutMemory():
        module = registered()["cyclegan"].build(registered()["cyclegan"].spec())
    state = {k: torch.zeros(1).expand(v.shape) for k, v in module.state_dict().items()}
    path = save(state)
    expected = f"it looks like cyclegan:\n  make export NETWORK=cyclegan WEIGHTS={path}"
    assert expected in _refusal(network, path)


def test_a_head_of_several_layers(network: Network, save: Save) -> None:
    state = _renamed(_checkpoint("resnet18", 7), "fc.", "fc.0.") | {
        "fc.3.weight": torch.zeros(7, 9)
    }
    refusal = _refusal(network, save(state))
    assert "it has the layers of resnet18, and as its head fc.0, fc.3; a head must be" in refusal
    assert "docs/your-model.md" in refusal
    assert refusal.partition(": ")[2] in _refusal(find("resnet18"), save(state))


def test_no_head(network: Network, save: Save) -> None:
    state = {k: v for k, v in _checkpoint("resnet18", 7).items() if not k.startswith("fc.")}
    assert "the layers of resnet18 without the last, fc: save" in _refusal(network, save(state))
    assert "missing    fc.weight" in _refusal(find("resnet18"), save(state))


def test_an_unknown_network_gets_the_list_of_differences(network: Network, save: Save) -> None:
    state = _checkpoint("resnet18", 7)
    del state["layer1.0.conv1.weight"]
    assert "missing    conv.weight" in _refusal(network, save(state))


@pytest.mark.slow
def test_a_classifier_of_each_family_is_recognised_as_itself() -> None:
    for *_, name in torchvision.families():
        found = recognised(torchvision.skeleton(name).state_dict())
        assert found
        assert found[0].name == name
