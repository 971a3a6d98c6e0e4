"""A ``.pt`` with OpenVINO's network: it has each weight once, and stays a TorchScript file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from torch import nn

from export.artefact import append, append_model
from handlers.network.artefact import read_files
from tests.conversion import converted


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 3, 3, padding=1))


@pytest.fixture
def pt(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.pt"
    torch.jit.trace(network(), torch.zeros(1, 3, 8, 8)).save(path)
    return path


def outputs(pt: Path, name: str, batch: torch.Tensor) -> torch.Tensor:
    weights = ov.Tensor(np.memmap(pt, mode="r", dtype=np.uint8))
    core = ov.Core()
    model = core.read_model(read_files(pt, f"{name}.xml")[0], weights)
    request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(request(batch.numpy())[0])


def test_the_weights_are_stored_once(pt: Path) -> None:
    append_model(pt, "openvino", converted(network()))
    [constants] = read_files(pt, "openvino.bin")
    assert len(constants) < 64 * 3 * 9 * 4  # less than one of the two layers


def test_another_network_brings_its_own_weights(pt: Path) -> None:
    module = network()
    for parameter in module.parameters():
        parameter.data.mul_(2)
    append_model(pt, "other", converted(module))
    append_model(pt, "openvino", converted(network()))
    batch = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(outputs(pt, "openvino", batch), network()(batch))
        torch.testing.assert_close(outputs(pt, "other", batch), module(batch))


def test_it_stays_a_torchscript_file(pt: Path) -> None:
    append_model(pt, "openvino", converted(network()))
    append(pt, {"model.json": b'{"name": "tiny"}'})
    extra = {"model.json": b""}
    script = torch.jit.load(pt, _extra_files=extra)
    assert extra == {"model.json": b'{"name": "tiny"}'}
    batch = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(script(batch), network()(batch))
    with zipfile.ZipFile(pt) as file:
        assert file.testzip() is None
        assert len(set(file.namelist())) == len(file.namelist())


def test_constants_are_aligned(pt: Path) -> None:
    """OpenVINO's kernels may read them in place."""
    append_model(pt, "openvino", converted(nn.Conv2d(3, 5, 1)))
    [program] = read_files(pt, "openvino.xml")
    offsets = [int(part.split(b'"')[0]) for part in program.split(b' offset="')[1:]]
    assert offsets
    assert [offset % 64 for offset in offsets] == [0] * len(offsets)
