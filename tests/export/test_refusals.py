"""Files that are no checkpoint of the network are refused, by an ExportError that says why."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from export.checkpoints import load
from export.errors import ExportError
from export.networks import StateDict, registered
from export.networks._generator import Generator

pytestmark = pytest.mark.slow

Save = Callable[[object], Path]


def _load(name: str, weights: object, variant: str | None = None) -> None:
    load(registered()[name], str(weights), variant=variant)


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._target),)


@pytest.mark.parametrize("how", ["torch.save", "pickle", "in a state dict"])
def test_code_in_a_checkpoint_does_not_run(how: str, save: Save, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    if how == "pickle":
        path = tmp_path / "evil.pth"
        path.write_bytes(pickle.dumps(Payload(target), protocol=2))
    else:
        path = save({"fc.weight": Payload(target)} if how == "in a state dict" else Payload(target))
    with pytest.raises(ExportError, match=r"loaded safely.*state_dict\(\)"):
        _load("resnet101", path)
    assert not target.exists()


def _bytes_of(checkpoint: object, path: Path, *, zipped: bool = True) -> bytes:
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    return path.read_bytes()


DAMAGES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "empty": lambda zipped, old: b"",
    "git-lfs pointer": lambda zipped, old: b"version https://git-lfs.github.com/spec/v1\noid sha25",
    "web page": lambda zipped, old: b"<!DOCTYPE html><html><title>Sign in</title></html>",
    "zeros": lambda zipped, old: bytes(len(zipped)),
    "half a zip file": lambda zipped, old: zipped[: len(zipped) // 2],
    "a zip file's first byte": lambda zipped, old: zipped[:1],
    "almost all of a zip file": lambda zipped, old: zipped[:-10],
    "half an old file": lambda zipped, old: old[: len(old) // 2],
    "an old file's first byte": lambda zipped, old: old[:1],
    "an old file's first pickle": lambda zipped, old: old[:20],
    "almost all of an old file": lambda zipped, old: old[:-10],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_damaged_file(damage: Callable[[bytes, bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    state = {"fc.weight": torch.zeros(7, 2048)}
    path.write_bytes(damage(_bytes_of(state, path), _bytes_of(state, path, zipped=False)))
    with pytest.raises(ExportError, match=str(path)):
        _load("resnet101", path)


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], torch.zeros(1), 5, {"epoch": 3}, {"state_dict": {"fc": 1}}]
)
def test_something_other_than_a_state_dict(content: object, save: Save) -> None:
    with pytest.raises(ExportError, match="contains no state dict, neither plain nor"):
        _load("cyclegan", save(content))


def _without_blocks(state: StateDict) -> StateDict:
    return {key: tensor for key, tensor in state.items() if "conv_block" not in key}


def _extra_blocks(state: StateDict) -> StateDict:
    return state | {f"model.{n}.conv_block.1.bias": torch.zeros(256) for n in range(30, 42)}


def _narrow(state: StateDict) -> StateDict:
    return {key: tensor[:1] for key, tensor in state.items()}


def _nan(state: StateDict) -> StateDict:
    return {key: tensor.clone().fill_(torch.nan) for key, tensor in state.items()}


def _first(prefix: str, keys: list[str]) -> str:
    return "".join(f"\n  {prefix} {key}" for key in keys)


KEYS = list(Generator().state_dict())
BLOCK_KEYS = [key for key in KEYS if "conv_block" in key]


@pytest.mark.parametrize(
    ("change", "problem", "keys", "more"),
    [
        (_without_blocks, "missing    ", BLOCK_KEYS, 28),
        (
            _extra_blocks,
            "unexpected ",
            [f"model.{n}.conv_block.1.bias" for n in range(30, 42)],
            4,
        ),
        (_narrow, "misshapen  ", KEYS, 40),
        (_nan, "not finite ", KEYS, 40),
    ],
    ids=["missing", "unexpected", "misshapen", "not finite"],
)
def test_first_few_problems_are_listed(
    change: Callable[[StateDict], StateDict],
    problem: str,
    keys: list[str],
    more: int,
    cyclegan: nn.Module,
    save: Save,
) -> None:
    """In the order of the network's layers: the same checkpoint always gives the same message."""
    with pytest.raises(ExportError) as refusal:
        _load("cyclegan", save(change(cyclegan.state_dict())))
    first, *lines, last = str(refusal.value).splitlines()
    assert first.endswith("does not fit this network:")
    assert [line.split(":")[0] for line in lines] == [f"  {problem}{key}" for key in keys[:8]]
    assert last == f"  and {more} more"


def test_a_single_problem_is_reported_in_full(cyclegan: nn.Module, save: Save) -> None:
    state = cyclegan.state_dict() | {"model.26.bias": torch.zeros(4)}
    path = save(state)
    with pytest.raises(ExportError) as refusal:
        _load("cyclegan", path)
    problem = "misshapen  model.26.bias: (4,), not (3,)"
    assert str(refusal.value) == f"{path} does not fit this network:\n  {problem}"


def test_batch_norm_generator_is_another_network(cyclegan: nn.Module, save: Save) -> None:
    """Its statistics look like the stale ones that are dropped; its gains are not dropped."""
    norm = {f"model.2.{name}": torch.ones(64) for name in ("weight", "bias", "running_mean")}
    with pytest.raises(ExportError, match=r"unexpected model\.2\.weight"):
        _load("cyclegan", save(cyclegan.state_dict() | norm))


def test_head_of_another_resnet(fine_tuned: nn.Module, save: Save) -> None:
    """ResNet-18 and -34 end in 512 features."""
    state = fine_tuned.state_dict() | {"fc.weight": torch.zeros(7, 512)}
    with pytest.raises(ExportError, match=r"misshapen  fc\.weight: \(7, 512\), not \(7, 2048\)"):
        _load("resnet101", save(state))


def test_missing_path_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as refusal:
        _load("resnet101", tmp_path / "not there.pth")
    for named in ("not there.pth", "pretrained", "random", "IMAGENET1K_V1", "IMAGENET1K_V2"):
        assert named in str(refusal.value)


def test_unknown_variant(cyclegan: nn.Module, save: Save) -> None:
    with pytest.raises(ExportError, match="book, original, not v2"):
        _load("cyclegan", save(cyclegan.state_dict()), "v2")


@pytest.mark.parametrize(
    ("model", "weights", "variant"),
    [
        ("resnet101", "pretrained", "v2"),
        ("resnet101", "IMAGENET1K_V2", "v1"),
        ("cyclegan", "horse2zebra", "original"),
    ],
)
def test_published_checkpoint_brings_its_own_variant(
    model: str, weights: str, variant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error comes before any download."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ExportError, match="was trained with preprocessing"):
        _load(model, weights, variant)
    assert not list(tmp_path.iterdir())
