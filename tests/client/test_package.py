"""The wheel in virtual environments of its own, with and without the extras."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import Running

pytestmark = pytest.mark.slow

LIMIT_S = 300
CLIENT = Path(__file__).parents[2] / "client"
UV = Path(sys.executable).with_name("uv")

Install = Callable[[str], Path]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of client/ without generated files, with the packages of this venv."""
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
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture
def install(wheel: Path, tmp_path: Path) -> Install:
    """Creates a venv with the wheel and ``extras``; returns its bin folder."""

    def make(extras: str) -> Path:
        venv = tmp_path / "venv"
        commands: tuple[list[str | Path], ...] = (
            ["venv", "--python", sys.executable, venv],
            ["pip", "install", "--python", venv / "bin" / "python", f"{wheel}{extras}"],
        )
        for command in commands:
            subprocess.run([UV, *command, "--quiet"], check=True, timeout=LIMIT_S)
        return venv / "bin"

    return make


@pytest.fixture
def folder(tmp_path: Path, jpeg: bytes) -> Path:
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    return tmp_path


def run(command: list[str | Path], folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={"PATH": os.environ["PATH"], "VISION_SERVER": url},
        capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip


def test_the_wheel_is_complete(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "vision_client/py.typed",
        "vision_client/inference_pb2.py",
        "vision_client/inference_pb2_grpc.py",
        "vision_client/page/index.html",
        "vision_client/page/static/page.js",
        "vision_client/page/static/examples/chelsea.jpg",
    } <= names
    others = [name for name in names if not re.match(r"vision_client(/|-.*\.dist-info/)", name)]
    assert others == []


BASE = """
import os, sys
from vision_client import AsyncClient, Client, MissingExtra

class Array:
    __array_interface__ = {"shape": (2, 2), "typestr": "|u1"}

with Client(os.environ["VISION_SERVER"]) as client:
    print(client.classify("photo.jpg").best.label)
    answer = client.translate(open("photo.jpg", "rb").read(), size=64, format="jpeg")
    answer.save("translated.jpg")
    assert all(model.ready for model in client.status()), client.status()
    for attempt in (
        answer.image,
        lambda: client.classify(Array()),
        lambda: Client("grpc://127.0.0.1:7070"),
        lambda: AsyncClient("grpc://127.0.0.1:7070"),
        lambda: AsyncClient("http://127.0.0.1:8080"),
    ):
        try:
            attempt()
        except MissingExtra as error:
            print(error)
"""


def test_requests_is_enough(install: Install, folder: Path, server: Running) -> None:
    """For photographs in files and bytes; all else names the extra that it needs."""
    bin = install("")
    ended = run([bin / "python", "-c", BASE], folder, server.config.inference)
    assert (ended.returncode, ended.stderr) == (0, "")
    label, *errors = ended.stdout.splitlines()
    assert label
    needs = "needs packages that are not installed: pip install 'vision-client"
    assert errors == [
        f"Translation.image {needs}[images]'",
        f"an array as a picture {needs}[images]'",
        f"gRPC {needs}[grpc]'",
        f"gRPC {needs}[grpc]'",
        f"AsyncClient over REST {needs}[async]'",
    ]
    assert (folder / "translated.jpg").read_bytes().startswith(b"\xff\xd8")
    command = run([bin / "vision", "status"], folder, server.config.inference)
    assert command.returncode == 1
    assert command.stderr == f"vision: the command vision {needs}[cli]'\n"
    listed = subprocess.run(
        [UV, "pip", "list", "--quiet", "--format", "freeze", "--python", bin / "python"],
        capture_output=True, text=True, check=True, timeout=LIMIT_S,
    ).stdout  # fmt: skip
    names = {line.partition("==")[0] for line in listed.splitlines() if "==" in line}
    requests = {"certifi", "charset-normalizer", "idna", "requests", "urllib3"}
    assert names - {"vision-client"} == requests


ASYNC = """
import asyncio, os
from vision_client import AsyncClient

async def main():
    async with AsyncClient(os.environ["VISION_SERVER"]) as client:
        print((await client.classify("photo.jpg", model="resnet101")).best.label)

asyncio.run(main())
"""


@pytest.mark.parametrize("extra", ["async", "grpc"])
def test_an_event_loop_needs_one_extra(
    install: Install, folder: Path, server: Running, extra: str
) -> None:
    url = server.config.inference if extra == "async" else f"grpc://{server.config.grpc}"
    ended = run([install(f"[{extra}]") / "python", "-c", ASYNC], folder, url)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout


def test_the_command_needs_one_extra(install: Install, folder: Path, server: Running) -> None:
    bin = install("[cli]")
    ended = run([bin / "vision", "classify", "photo.jpg"], folder, server.config.inference)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("photo.jpg") == 5
    missing = "needs packages that are not installed: pip install 'vision-client"
    page = run([bin / "vision", "page"], folder, server.config.inference)
    assert (page.returncode, page.stderr) == (1, f"vision: vision page {missing}[page]'\n")
    grpc = run([bin / "vision", "classify", "photo.jpg", "--grpc"], folder, server.config.inference)
    assert (grpc.returncode, grpc.stderr) == (1, f"vision: gRPC {missing}[grpc]'\n")


IMPORT_ALL = """
import importlib, pkgutil
import vision_client
for module in pkgutil.walk_packages(vision_client.__path__, "vision_client."):
    importlib.import_module(module.name)
    print(module.name)
"""


def test_the_extras_are_all_that_is_imported(
    install: Install, folder: Path, server: Running
) -> None:
    """Without PyTorch and this project."""
    python = install("[grpc,page]") / "python"
    ended = run([python, "-c", IMPORT_ALL], folder, server.config.inference)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "vision_client.page.app" in ended.stdout.split()
