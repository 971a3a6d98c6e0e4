"""The proof refuses a trace that differs from its module in any way."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export import openvino
from export.checkpoints import Loaded
from export.errors import ExportError
from export.networks import registered
from export.prove import STANDALONE, prove
from export.trace import Traced, trace
from handlers.metadata import Weights

pytestmark = pytest.mark.slow


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


def _exported(module: nn.Module, path: Path) -> tuple[Loaded, Traced]:
    network = registered()["cyclegan"]
    weights = Weights("tiny", "here", False, None, None)
    loaded = Loaded(network, module.eval().requires_grad_(False), network.spec(), weights)
    return loaded, trace(loaded, path)


def test_sound_module_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    proof = prove(*_exported(Sound(), path), path).torchscript
    assert proof["worst"] <= proof["tolerance"]
    shapes = [case["shape"] for case in proof["cases"]]
    assert {n for n, *_ in shapes} >= {1, 5}
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
    exported = _exported(module(), path)
    with pytest.raises(ExportError, match="the traced network"):
        prove(*exported, path)


def test_weights_other_than_the_eager_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    loaded, traced = _exported(Sound(), path)
    bias = loaded.module.get_parameter("conv.bias")
    bias.add_(0.01)
    with pytest.raises(ExportError, match="differs from eager PyTorch"):
        prove(loaded, traced, path)


def test_openvino_is_proved_beside_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    loaded, traced = _exported(Sound(), path)
    assert openvino.add(traced.script, loaded.network, 64, path) == ""
    proof = prove(loaded, traced, path).openvino
    assert proof is not None
    assert proof["passed"], proof


def test_another_network_in_openvino_fails(tmp_path: Path) -> None:
    """One layer differs, and TorchScript is sound."""
    path, other = tmp_path / "tiny.pt", tmp_path / "other.pt"
    module = Sound()
    damaged = copy.deepcopy(module)
    damaged.conv.weight.data[0, 0, 0, 0] += 0.1
    loaded, traced = _exported(module, path)
    openvino.add(_exported(damaged, other)[1].script, loaded.network, 64, path)
    proof = prove(loaded, traced, path)
    assert proof.openvino is not None
    assert not proof.openvino["passed"]
    assert "float32 differs from eager by" in proof.openvino["summary"]


def test_a_crash_of_openvino_leaves_torchscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, crashing = tmp_path / "tiny.pt", tmp_path / "crashing.py"
    source = STANDALONE.read_text()
    assert "    import openvino as ov\n" in source
    crash = "    import os\n\n    os.abort()\n    import openvino as ov\n"
    crashing.write_text(source.replace("    import openvino as ov\n", crash))
    monkeypatch.setattr("export.prove.STANDALONE", crashing)
    loaded, traced = _exported(Sound(), path)
    openvino.add(traced.script, loaded.network, 64, path)
    assert prove(loaded, traced, path).openvino == {
        "passed": False,
        "summary": "it does not run: it ended with status -6",
    }


def test_a_network_that_openvino_cannot_convert(tmp_path: Path) -> None:
    class Unusual(Sound):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = super().forward(x) + 0 * torch.special.bessel_j0(x)
            return output

    path = tmp_path / "tiny.pt"
    loaded, traced = _exported(Unusual(), path)
    assert "OpenVINO cannot convert it" in openvino.add(traced.script, loaded.network, 64, path)
    assert prove(loaded, traced, path).openvino is None
