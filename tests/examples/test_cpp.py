"""How examples/cpp is built, and what the builds depend on."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.networks import find
from export.pipeline import Job, export
from tests.examples.conftest import Programs
from tests.examples.run import ROOT, ranking, run, shell_blocks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cpp")]  # built once

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


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier's .aoti.pt2, with its .pt beside it. Read it only."""
    store = tmp_path_factory.mktemp("compiled")
    network = find(str(ROOT / "tests" / "networks" / "tiny_classifier.py"))
    export([Job(network, "random")], store, compiled=True)
    return store / "tiny_classifier.aoti.pt2"


def test_a_compiled_package_answers_as_the_torchscript(
    cpp: Programs, compiled: Path, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    """The programs' input is not in C order in memory, and compiled code does not look."""
    photo = tmp_path / "photo.png"
    photographs["chelsea"].save(photo)
    script = compiled.with_name("tiny_classifier.pt")
    expected = cpp.run("classify", script, photo, "--device", "cpu")
    actual = cpp.run("classify", compiled, photo)
    assert actual.returncode == 0, actual.stderr
    assert actual.stderr == "untrained weights on cpu\n"
    assert dict(ranking(actual.stdout)) == pytest.approx(dict(ranking(expected.stdout)), abs=1e-4)


def _with_another_golden_output(package: Path, path: Path) -> None:
    """Copy ``package`` with a golden output that the network does not give."""
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(path, "w") as copy:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("_metadata.json"):
                metadata = json.loads(data)
                golden = np.frombuffer(
                    base64.b64decode(metadata["golden_output.f32.base64"]), "<f4"
                )
                other = base64.b64encode((golden * 1.01).astype("<f4").tobytes()).decode()
                data = json.dumps(metadata | {"golden_output.f32.base64": other}).encode()
            copy.writestr(name, data)


@pytest.mark.parametrize(
    ("damage", "device", "why"),
    [
        ("truncated", "auto", "is not an AOTInductor package for this machine, or is damaged"),
        ("golden", "auto", "misses its golden example on cpu"),
        ("none", "cuda", "is compiled for the CPU"),
    ],
)
def test_a_compiled_package_that_is_refused(
    cpp: Programs, compiled: Path, tmp_path: Path, damage: str, device: str, why: str
) -> None:
    package = tmp_path / "damaged.aoti.pt2"
    if damage == "golden":
        _with_another_golden_output(compiled, package)
    else:
        whole = compiled.read_bytes()
        package.write_bytes(whole if damage == "none" else whole[: len(whole) // 2])
    ran = cpp.run("classify", package, "photo.png", "--device", device)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"error: {package} ")
    assert why in ran.stderr
    assert ran.stderr.count("\n") == 1
