"""A network that cannot be served fails the load, with a message that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from handlers.errors import LoadError
from handlers.network.batches import exit_if_lost
from tests.handlers.support import Load, WriteArtefact, raw
from tests.specs import CYCLEGAN

ROOT = Path(__file__).parents[2]


def test_a_valid_artefact_loads(artefact: WriteArtefact, load: Load) -> None:
    metadata = load(artefact()).service.metadata
    assert (metadata.spec, metadata.weights.name) == (CYCLEGAN, "untrained")


@pytest.mark.parametrize("missing", ["model__json", "golden_input__f32", "golden_output__f32"])
def test_an_artefact_without_its_extra_files(
    artefact: WriteArtefact, load: Load, missing: str
) -> None:
    with pytest.raises(LoadError, match=r"tiny.pt has no specification.*make export"):
        load(artefact(**{missing: b""}))


@pytest.mark.parametrize("value", [0.01, -1.0, float("nan"), float("inf")])
def test_an_artefact_that_misses_its_golden_example(
    artefact: WriteArtefact, load: Load, value: float
) -> None:
    output = torch.linspace(-1, 1, 3 * 8 * 8).tanh()
    output[50] += value
    with pytest.raises(LoadError, match=r"cyclegan on cpu misses its golden example"):
        load(artefact(golden_output__f32=raw(output)))


def test_a_rounding_error_in_the_golden_example_is_accepted(
    artefact: WriteArtefact, load: Load
) -> None:
    output = torch.linspace(-1, 1, 3 * 8 * 8).tanh() + 1e-5
    load(artefact(golden_output__f32=raw(output)))


@pytest.mark.parametrize("content", [b"", b"not a network", bytes(100_000)])
def test_a_file_that_is_not_an_artefact(tmp_path: Path, load: Load, content: bytes) -> None:
    path = tmp_path / "cyclegan.pt"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=r"cyclegan.pt is not a TorchScript file, or is damaged"):
        load(path)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_export(
    model_store: Path, tmp_path: Path, load: Load, damage: str, precision: str
) -> None:
    content = bytearray((model_store / "cyclegan.pt").read_bytes())
    middle = len(content) // 2
    if damage == "cut":
        del content[-middle:]
    else:
        content[middle : middle + 4096] = b"\x55" * 4096
    path = tmp_path / "cyclegan.pt"
    path.write_bytes(content)
    with pytest.raises(LoadError):
        load(path, precision=precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_pytorch_cannot_use(model_store: Path, load: Load) -> None:
    with pytest.raises(LoadError, match=r"GPU 0.*NVIDIA driver.*make serve DEVICE=cpu"):
        load(model_store / "cyclegan.pt", gpu=0)


def test_a_lost_gpu_ends_the_process() -> None:
    code = """if True:
        import torch
        from handlers.network.batches import exit_if_lost
        print("before", flush=True)
        exit_if_lost(torch.device("cuda", 0))
        print("after")
    """
    # Without a device synchronize() raises, as it does after a CUDA fault.
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (1, "before\n")
    assert "is lost: ending the worker" in run.stderr


def test_a_cpu_is_never_lost() -> None:
    exit_if_lost(torch.device("cpu"))
