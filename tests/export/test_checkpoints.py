"""Checkpoints of CycleGAN in all common formats give the generator that they were saved from."""

from __future__ import annotations

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


def _lightning(state: StateDict) -> object:
    own = {f"model._orig_mod.{key}": tensor for key, tensor in state.items()}
    return {"epoch": 3, "state_dict": own | {"loss.weight": torch.ones(3)}}


def _data_parallel(state: StateDict) -> StateDict:
    return {f"module.{key}": tensor for key, tensor in state.items()}


def _load(name: str, path: Path, variant: str | None = None) -> Loaded:
    return load(registered()[name], str(path), variant=variant)


def _outputs(network: nn.Module, side: int = 64) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = network(torch.rand(1, 3, side, side, generator=_seed()))
    return output


def _seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


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
    "compiled in a Lightning module": _lightning,
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
