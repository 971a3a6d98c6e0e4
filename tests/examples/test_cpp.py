"""How examples/cpp is built, and what the builds depend on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.examples.conftest import Programs
from tests.examples.run import run, shell_blocks

pytestmark = pytest.mark.slow

BUILD = "examples/cpp/build"
CONFIGURE = ("cmake", "-S", "examples/cpp", "-B", "other")


@pytest.mark.parametrize("tool", ["cmake", "make"])
def test_a_gpu_is_found_where_pytorch_has_it(built: dict[str, Path], tool: str) -> None:
    """Nothing calls into libtorch_cuda.so, but without it no GPU is found."""
    ran = run("ldd", built[tool] / BUILD / "classify", env={"LD_LIBRARY_PATH": ""})
    assert "not found" not in ran.stdout
    assert ("libtorch_cuda.so" in ran.stdout) == (torch.version.cuda is not None)


def test_cmake_never_looks_for_cuda(built: dict[str, Path]) -> None:
    assert "CUDA" not in (built["cmake"] / BUILD / "CMakeCache.txt").read_text()


def test_find_package_needs_the_cuda_toolkit(built: dict[str, Path]) -> None:
    """As the README says of -DTORCH_FROM=package with a PyTorch that is built for CUDA."""
    command = shell_blocks("C++")[3].replace(BUILD, "package")
    command = command.replace("/opt/libtorch", torch.utils.cmake_prefix_path)
    ran = run("bash", "-euc", command, cwd=built["cmake"])
    if ran.returncode == 0:  # PyTorch for the CPU, or a machine with the toolkit
        assert "Found Torch" in ran.stdout
    else:
        assert torch.version.cuda is not None
        assert "cannot find the CUDA" in ran.stderr


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ((*CONFIGURE, "-DPYTHON=false"), "has no PyTorch"),
        ((*CONFIGURE, "-DTORCH_FROM=x"), "wheel or package"),
        (("make", "-C", "examples/cpp", "--always-make", "PYTHON=false"), "has no PyTorch"),
    ],
)
def test_a_build_that_fails(built: dict[str, Path], command: tuple[str, ...], why: str) -> None:
    ran = run(*command, cwd=built["cmake"])
    assert ran.returncode != 0
    assert why in ran.stdout + ran.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(cpp: Programs, model_store: Path) -> None:
    ran = cpp.run("classify", model_store / "resnet101.pt", "photo.png", "--device", "cuda")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: ")
    assert "no GPU" in ran.stderr
    assert ran.stderr.count("\n") == 1
