"""The client as others install it: a wheel that needs nothing of this project, and no PyTorch."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

LIMIT_S = 300
ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "client"
UV = Path(sys.executable).with_name("uv")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of client/ as git has it, with what is installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "client"
    shutil.copytree(CLIENT, source)
    for stub in (source / "vision_client").glob("inference_pb2*"):
        stub.unlink()
    subprocess.run(
        [UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable,
         "--out-dir", folder, source],
        check=True, timeout=LIMIT_S,
    )  # fmt: skip
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_all_it_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "vision_client/py.typed",
        "vision_client/inference_pb2.py",
        "vision_client/inference_pb2_grpc.py",
        "vision_client/page/static/index.html",
        "vision_client/page/static/examples/chelsea.jpg",
    } <= names
    others = [name for name in names if not re.match(r"vision_client(/|-.*\.dist-info/)", name)]
    assert others == []


def test_every_import_is_a_declared_dependency(wheel: Path) -> None:
    """Else it works here, where everything is installed, and nowhere else."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        text = archive.read(metadata).decode()
        told = re.findall(r"^Requires-Dist: ([\w-]+)", text, re.MULTILINE)
        sources = [archive.read(name) for name in archive.namelist() if name.endswith(".py")]
    imported: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    outside = imported - set(sys.stdlib_module_names) - {"vision_client"}
    distributions = packages_distributions()
    needed = {distributions[name][0].lower().replace("_", "-") for name in outside - {"google"}}
    assert needed <= set(told)
    assert "protobuf" in told  # of the namespace google


def test_it_runs_without_pytorch_and_this_project(
    wheel: Path, server: Any, jpeg: bytes, tmp_path: Path
) -> None:
    """Its dependencies come from here; torch, numpy and our folders cannot be imported."""
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    code = f"""
import sys
sys.path.insert(0, {str(installed)!r})
for name in ("torch", "torchvision", "numpy", "ts", "handlers", "serving", "export"):
    sys.modules[name] = None  # an import of it is an error
import vision_client
assert vision_client.__file__.startswith({str(installed)!r}), vision_client.__file__
sys.argv = ["vision", "classify", "photo.jpg"]
from vision_client.cli import main
main()
"""
    env = {**os.environ, "VISION_SERVER": server.config.inference}
    command = [sys.executable, "-c", code]
    run = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("photo.jpg") == 5
