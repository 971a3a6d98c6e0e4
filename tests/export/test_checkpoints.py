"""Checkpoints in all common formats give the network that they were saved from."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from export.checkpoints import Loaded, load
from export.networks import StateDict, registered
from export.networks._generator import Generator
from handlers.metadata import Weights

pytestmark = pytest.mark.slow

Save = Callable[[object], Path]
Wrap = Callable[[StateDict], object]


def _under_state_dict(state: StateDict) -> object:
    return {"epoch": 3, "optimizer": {"lr": 0.1}, "state_dict": state}


def _data_parallel(state: StateDict) -> StateDict:
    return {f"module.{key}": tensor for key, tensor in state.items()}


def _without_counters(state: StateDict) -> StateDict:
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def _half(state: StateDict) -> StateDict:
    return {k: v.half() if v.is_floating_point() else v for k, v in state.items()}


RESNET_FORMATS: dict[str, Wrap] = {
    "plain": lambda state: state,
    "under state_dict": _under_state_dict,
    "data parallel": _data_parallel,
    "data parallel under state_dict": lambda state: _under_state_dict(_data_parallel(state)),
    "no counters": _without_counters,
}


def _load(name: str, path: Path, variant: str | None = None) -> Loaded:
    return load(registered()[name], str(path), variant=variant)


def _outputs(network: nn.Module, side: int = 64) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = network(torch.rand(1, 3, side, side, generator=_seed()))
    return output


def _seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("wrap", RESNET_FORMATS.values(), ids=list(RESNET_FORMATS))
def test_resnet101_of_seven_classes(wrap: Wrap, fine_tuned: nn.Module, save: Save) -> None:
    network = _load("resnet101", save(wrap(fine_tuned.state_dict())))
    assert torch.equal(_outputs(network.module), _outputs(fine_tuned))
    assert network.spec.labels == tuple(f"class {i}" for i in range(7))
    assert not network.module.training


def test_half_precision_checkpoint_runs_in_float32(fine_tuned: nn.Module, save: Save) -> None:
    network = _load("resnet101", save(_half(fine_tuned.state_dict())))
    output, expected = _outputs(network.module), _outputs(fine_tuned)
    assert output.dtype == torch.float32
    assert (output - expected).abs().max() < 0.02 * expected.abs().max()


def _stale_statistics(state: StateDict) -> StateDict:
    """InstanceNorm2d before PyTorch 0.4 saved these in each layer, and never read them."""
    norms = ["model.2", *(f"model.{n}.conv_block.{i}" for n in range(10, 19) for i in (2, 6))]
    stale = {f"{norm}.{name}": torch.rand(64) for norm in norms for name in ("running_mean",
             "running_var")}  # fmt: skip
    return state | stale | {f"{norm}.num_batches_tracked": torch.tensor(1) for norm in norms}


def _dropout_layout(state: StateDict) -> StateDict:
    return {k.replace("conv_block.5.", "conv_block.6."): v for k, v in state.items()}


CYCLEGAN_FORMATS: dict[str, Wrap] = {
    "plain": lambda state: state,
    "stale statistics": _stale_statistics,
    "trained with dropout": _dropout_layout,
    "trained with dropout, stale statistics": lambda s: _stale_statistics(_dropout_layout(s)),
    "data parallel": _data_parallel,
    "under state_dict": _under_state_dict,
}


@pytest.mark.parametrize("wrap", CYCLEGAN_FORMATS.values(), ids=list(CYCLEGAN_FORMATS))
def test_cyclegan(wrap: Wrap, cyclegan: nn.Module, save: Save) -> None:
    network = _load("cyclegan", save(wrap(cyclegan.state_dict())))
    assert torch.equal(_outputs(network.module), _outputs(cyclegan))


def test_file_format_of_pytorch_before_1_6(cyclegan: nn.Module, tmp_path: Path) -> None:
    """Pickles and raw storages instead of a zip file; the book's checkpoint has this format."""
    path = tmp_path / "horse2zebra_0.4.0.pth"
    torch.save(cyclegan.state_dict(), path, _use_new_zipfile_serialization=False)
    assert torch.equal(_outputs(_load("cyclegan", path).module), _outputs(cyclegan))


def test_generator_is_the_published_one() -> None:
    network = Generator()
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_378_179
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert shapes["model.1.weight"] == (64, 3, 7, 7)
    assert shapes["model.10.conv_block.1.weight"] == (256, 256, 3, 3)
    assert shapes["model.18.conv_block.5.bias"] == (256,)
    assert shapes["model.26.bias"] == (3,)
    assert len(shapes) == 48


def test_weights_are_named_for_a_response_header(cyclegan: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "my best zèbres (2).pth"
    torch.save(cyclegan.state_dict(), path)
    weights = _load("cyclegan", path).weights
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights == Weights(
        name=f"my_best_z_bres_2_-{digest[:8]}",
        source=path.name,
        trained=True,
        sha256=digest,
        licence=None,
    )


@pytest.mark.parametrize(
    ("variant", "mean"), [(None, 0.0), ("book", 0.0), ("original", 0.5)]
)  # fmt: skip
def test_variant_decides_preprocessing(
    variant: str | None, mean: float, cyclegan: nn.Module, save: Save
) -> None:
    network = _load("cyclegan", save(cyclegan.state_dict()), variant)
    assert network.spec.mean == (mean,) * 3


def test_a_channels_last_checkpoint_has_the_usual_order_in_memory(
    fine_tuned: nn.Module, save: Callable[[object], Path]
) -> None:
    state = copy.deepcopy(fine_tuned).to(memory_format=torch.channels_last).state_dict()
    assert not state["conv1.weight"].is_contiguous()
    loaded = load(registered()["resnet101"], str(save(state)))
    assert all(tensor.is_contiguous() for tensor in loaded.module.state_dict().values())
