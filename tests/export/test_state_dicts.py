"""State dicts as people save them give the network that they were saved from."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from export.checkpoints import load
from export.errors import ExportError
from export.networks import Network, StateDict, find

OWN = Path(__file__).parents[1] / "networks"
CLASSES = ["ant", "bee", "cat", "dog", "eel"]
INDEX = {name: index for index, name in enumerate(CLASSES)}

Save = Callable[[object], Path]
Wrap = Callable[[StateDict], object]


@pytest.fixture(scope="module")
def network() -> Network:
    return find(str(OWN / "tiny_classifier.py"))


@pytest.fixture(scope="module")
def module(network: Network) -> nn.Module:
    """A tiny classifier of five classes. Read it only."""
    return network.build(network.spec(labels=tuple(CLASSES))).eval().requires_grad_(False)


def _outputs(module: nn.Module) -> torch.Tensor:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    output: torch.Tensor = module(picture)
    return output


def _prefixed(prefix: str) -> Callable[[StateDict], StateDict]:
    return lambda state: {f"{prefix}{key}": tensor for key, tensor in state.items()}


def _in_sequential(state: StateDict) -> StateDict:
    """``head = nn.Sequential(nn.Dropout(), nn.Linear(...))``"""
    return {key.replace("head.", "head.1."): tensor for key, tensor in state.items()}


def _lightning(state: StateDict) -> object:
    """A compiled network in a LightningModule, with the loss's class weights beside it."""
    own = _prefixed("model._orig_mod.")(_in_sequential(state))
    return {
        "state_dict": own | {"criterion.weight": torch.ones(5)},
        "pytorch-lightning_version": "2.5.0",
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1)}}, "param_groups": []}],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}},
    }


FORMATS: dict[str, Wrap] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "optimizer": {"lr": 0.1}, "state_dict": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.1},
    "model": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    "any name": lambda state: {"best_weights": state, "epoch": 3},
    "the usual one of two": lambda state: {"ema": {"conv.weight": torch.ones(1)}, "net": state},
    "DataParallel": _prefixed("module."),
    "torch.compile": _prefixed("_orig_mod."),
    "a compiled layer": lambda s: {k.replace("conv.", "conv._orig_mod."): s[k] for k in s},
    "DataParallel, compiled": lambda state: {"model": _prefixed("module._orig_mod.")(state)},
    "AveragedModel": lambda s: _prefixed("module.")(s) | {"n_averaged": torch.tensor(7)},
    "Lightning": _lightning,
    "Dropout and Linear as the head": _in_sequential,
    "no counters": lambda s: {k: s[k] for k in s if not k.endswith("num_batches_tracked")},
}  # fmt: skip


@pytest.mark.parametrize("wrap", FORMATS.values(), ids=list(FORMATS))
def test_formats(wrap: Wrap, network: Network, module: nn.Module, save: Save) -> None:
    loaded = load(network, str(save(wrap(module.state_dict()))))
    assert torch.equal(_outputs(loaded.module), _outputs(module))
    assert loaded.spec.labels == tuple(f"class {i}" for i in range(5))
    assert not loaded.module.training


def test_what_was_renamed_and_left_out_is_said(
    network: Network, module: nn.Module, save: Save
) -> None:
    assert load(network, str(save(module.state_dict()))).note == ""
    assert load(network, str(save(_lightning(module.state_dict())))).note == (
        "names without model., head.1 as head, left out criterion.weight"
    )


BESIDE: dict[str, tuple[str, torch.Tensor]] = {
    "another head": ("fc.weight", torch.zeros(37, 5)),
    "a normalisation": ("norm.mean", torch.zeros(3)),
    "a temperature": ("temperature", torch.tensor(1.5)),
    "the classes of a metric loss": ("loss.weight", torch.zeros(37, 5)),
}


@pytest.mark.parametrize(("name", "tensor"), BESIDE.values(), ids=list(BESIDE))
def test_what_may_change_the_answers_is_not_left_out(
    name: str, tensor: torch.Tensor, network: Network, module: nn.Module, save: Save, tmp_path: Path
) -> None:
    """The names of 37 classes do not hide the reason."""
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(str(i) for i in range(37)))
    state = _prefixed("backbone.")(module.state_dict()) | {name: tensor}
    reason = (
        rf"backbone\. and leave out {name}, .*save\(model\.backbone\.state_dict\(\), .*md shows"
    )
    with pytest.raises(ExportError, match=reason):
        load(network, str(save(state)), labels=labels)


@pytest.mark.parametrize("name", ["criterion.weight", "train_loss.alpha", "class_weights"])
def test_a_loss_and_counts_are_left_out(
    name: str, network: Network, module: nn.Module, save: Save
) -> None:
    state = _prefixed("model.")(module.state_dict()) | {name: torch.ones(5)}
    load(network, str(save(state | {"val_acc.confmat": torch.zeros(5, 5, dtype=torch.long)})))


def test_safetensors(network: Network, module: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(_prefixed("model.")(module.state_dict()), path)
    loaded = load(network, str(path))
    assert torch.equal(_outputs(loaded.module), _outputs(module))
    assert loaded.weights.source == "mine.safetensors"


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha25"])
def test_a_damaged_safetensors_file(content: bytes, network: Network, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"mine\.safetensors is not a safetensors file: "):
        load(network, str(path))


def test_half_precision_runs_in_float32(network: Network, module: nn.Module, save: Save) -> None:
    half = copy.deepcopy(module).half().state_dict()
    output, expected = _outputs(load(network, str(save(half))).module), _outputs(module)
    assert output.dtype == torch.float32
    assert (output - expected).abs().max() < 0.02 * expected.abs().max()


def test_channels_last_gets_the_usual_order_in_memory(
    network: Network, module: nn.Module, save: Save
) -> None:
    state = copy.deepcopy(module).to(memory_format=torch.channels_last).state_dict()
    assert not state["conv.weight"].is_contiguous()
    loaded = load(network, str(save(state)))
    assert all(tensor.is_contiguous() for tensor in loaded.module.state_dict().values())


@pytest.mark.parametrize(
    ("layer", "dtype"), [("conv.weight", torch.int64), ("head.weight", torch.complex64)]
)
def test_weights_that_are_not_real_numbers(
    layer: str, dtype: torch.dtype, network: Network, module: nn.Module, save: Save
) -> None:
    state = module.state_dict()
    path = save(state | {layer: state[layer].to(dtype)})
    with pytest.raises(ExportError, match=rf"this network:\n  not float  {layer}: {dtype}$"):
        load(network, str(path))


@pytest.mark.parametrize(
    "named",
    [
        {"class_to_idx": dict(reversed(INDEX.items()))},
        {"classes": CLASSES},
        {"classes": tuple(CLASSES)},
        {"class_to_idx": 5, "classes": CLASSES},
    ],
)
def test_labels_in_the_checkpoint(
    named: dict[str, object], network: Network, module: nn.Module, save: Save
) -> None:
    path = save({"state_dict": module.state_dict(), **named})
    assert load(network, str(path)).spec.labels == tuple(CLASSES)


def test_a_count_of_classes_gives_no_labels(
    network: Network, module: nn.Module, save: Save
) -> None:
    path = save({"model": module.state_dict(), "classes": 5})
    assert load(network, str(path)).spec.labels == tuple(f"class {i}" for i in range(5))


@pytest.mark.parametrize("classes", [torch.arange(5), CLASSES[:4], "five"])
def test_features_need_no_labels(
    classes: object, network: Network, module: nn.Module, save: Save
) -> None:
    path = save({"model": module.state_dict(), "classes": classes})
    assert load(network.with_task("embed"), str(path)).spec.labels == ()


@pytest.mark.parametrize("inside", [INDEX, torch.arange(5), "five"])
def test_a_file_of_labels_goes_before_those_in_the_checkpoint(
    inside: object, network: Network, module: nn.Module, save: Save, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join("vwxyz"))
    path = save({"model": module.state_dict(), "class_to_idx": inside})
    assert load(network, str(path), labels=labels).spec.labels == tuple("vwxyz")


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ({"classes": CLASSES[:4]}, "list inside the checkpoint has 4 labels; .* has 5 classes"),
        ({"class_to_idx": {"ant": 0, "bee": 0}}, "its class_to_idx gives no class names"),
        ({"classes": torch.arange(5)}, r"its classes gives no class names .* with LABELS=FILE"),
    ],
)
def test_labels_that_do_not_fit(
    named: dict[str, object], reason: str, network: Network, module: nn.Module, save: Save
) -> None:
    with pytest.raises(ExportError, match=reason):
        load(network, str(save({"model": module.state_dict(), **named})))


def test_a_count_of_labels_that_does_not_fit(
    network: Network, module: nn.Module, save: Save, tmp_path: Path
) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("a\nb\nc\n")
    with pytest.raises(ExportError, match="3 labels; the checkpoint has 5 classes"):
        load(network, str(save(module.state_dict())), labels=path)


def test_several_networks_in_one_file(network: Network, module: nn.Module, save: Save) -> None:
    state = module.state_dict()
    with pytest.raises(ExportError, match=r"contains 2 state dicts: student, teacher; save the"):
        load(network, str(save({"student": state, "teacher": state})))
    with pytest.raises(ExportError, match=r"whose names begin with student\., teacher\."):
        load(network, str(save(_prefixed("student.")(state) | _prefixed("teacher.")(state))))


def test_pickled_modules_are_refused_with_the_fix(network: Network, save: Save) -> None:
    whole = nn.Sequential(nn.Linear(2, 2))
    for content in (whole, {"model": whole, "epoch": 3}):
        with pytest.raises(
            ExportError, match=r"holds a whole pickled module .*state_dict\(\)"
        ) as no:
            load(network, str(save(content)))
        assert "\n" not in str(no.value)


def test_torchscript_is_refused_with_the_fix(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.jit.script(nn.Linear(2, 2)).save(path)
    with pytest.raises(ExportError, match=r"is TorchScript, .*torch\.jit\.load.*state_dict\(\)"):
        load(network, str(path))


def test_another_object_is_named(network: Network, module: nn.Module, save: Save) -> None:
    path = save({"model": module.state_dict(), "where": Path("photos")})
    with pytest.raises(ExportError, match=r"it holds a pathlib\.PosixPath"):
        load(network, str(path))
