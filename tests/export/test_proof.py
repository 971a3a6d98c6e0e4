"""The proof refuses a trace that differs from its module in any way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export.checkpoints import Loaded
from export.networks import registered
from export.prove import prove
from export.trace import trace
from handlers.metadata import Weights


class Sound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.conv(x))


class SizeBakedIn(Sound):
    """Resizes to the size of the example, which the trace keeps as a constant."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = F.avg_pool2d(super().forward(x), 2)
        return F.interpolate(half, size=(int(x.shape[2]), int(x.shape[3])))


class BatchBakedIn(Sound):
    """Divides by the example's batch size: only cases of another size show it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / int(x.shape[0])


class ValueBakedIn(Sound):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x.mean().item()


class BranchBakedIn(Sound):
    """Takes one branch for pictures as small as the traced one, another for larger ones."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y if x.numel() < 64 * 1024 else -y


class DeviceBakedIn(Sound):
    """Right on every CPU; fails on a GPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.linspace(0, 1, x.shape[3], device=x.device)


class NotFiniteElsewhere(Sound):
    """Adds 0 if eager; for larger pictures, the trace takes the root of a negative number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        room = torch.as_tensor(int(x.shape[2]) - x.shape[2])
        return super().forward(x) + room.float().sqrt()


def _exported(module: nn.Module, path: Path) -> Loaded:
    network = registered()["cyclegan"]
    weights = Weights("tiny", "here", False, None, None)
    loaded = Loaded(network, module.eval().requires_grad_(False), network.spec(), weights)
    trace(loaded, path)
    return loaded


def test_sound_module_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    [proof] = prove(_exported(Sound(), path), path)
    assert proof["worst"] <= proof["tolerance"]
    shapes = [case["shape"] for case in proof["cases"]]
    assert {n for n, *_ in shapes} == {1, 5}
    assert any(height != width for *_, height, width in shapes)


@pytest.mark.parametrize(
    "module",
    [
        SizeBakedIn,
        BatchBakedIn,
        ValueBakedIn,
        BranchBakedIn,
        DeviceBakedIn,
        NotFiniteElsewhere,
    ],
)
def test_trace_that_differs_is_refused(module: type[nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    loaded = _exported(module(), path)
    [proof] = prove(loaded, path)
    assert re.match("differs from|does not run|holds a device", proof["failed"])


def test_weights_other_than_the_eager_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    loaded = _exported(Sound(), path)
    bias = loaded.module.get_parameter("conv.bias")
    bias.add_(0.01)
    [proof] = prove(loaded, path)
    assert proof["failed"].startswith("differs from eager PyTorch")
