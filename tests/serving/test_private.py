"""Nobody but the server itself reaches TorchServe: other users of the machine are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from serving.config import Config
from serving.runfolder import RunFolder
from serving.sockets import Sockets
from tests import running
from tests.running import MakeConfig, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

# Run by another user: what happens at each socket and port.
INTRUDER = """
import json, os, socket, sys
import grpc._channel  # before this interpreter's own files are out of reach
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
seen = {}
for path in json.loads(sys.argv[1]):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        seen[path] = "connected"
    except OSError as error:
        seen[path] = type(error).__name__
for port, method in json.loads(sys.argv[2]):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(method)(b"", timeout=20)
            seen[method] = "answered"
        except grpc.RpcError as error:
            seen[method] = error.code().name
print(json.dumps(seen))
"""
SERVICES = {
    "grpc_management_port": "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels",
    "grpc_inference_port": "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
}


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, model_store: Path, make_config: MakeConfig
) -> Iterator[RunFolder]:
    """Of a server behind its gateway."""
    folder = tmp_path_factory.mktemp("private")
    config = make_config(folder, model_store, load_models="resnet101.mar")
    with running.serve(config):
        yield RunFolder(folder / "run")


def test_another_user_reaches_nothing(run: RunFolder) -> None:
    started_with = Config.read(run.path / "config.properties").values
    sockets = Sockets(run.sockets.folder.resolve())
    paths = [
        str(path)
        for path in (
            sockets.inference, sockets.management, sockets.metrics, sockets.control,
            sockets.admission,
        )
    ]  # fmt: skip
    assert all(Path(path).exists() for path in paths)
    ports = [[started_with[key], method] for key, method in SERVICES.items()]
    done = subprocess.run(
        [sys.executable, "-c", INTRUDER, json.dumps(paths), json.dumps(ports)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert [seen[path] for path in paths] == ["PermissionError"] * len(paths)
    assert [seen[method] for method in SERVICES.values()] == ["PERMISSION_DENIED"] * 2


def test_the_tokens_are_for_the_owner_alone(run: RunFolder) -> None:
    assert run.sockets.key_file.stat().st_mode & 0o777 == 0o600
    assert run.sockets.folder.stat().st_mode & 0o777 == 0o700
    for log in [*run.logs.iterdir(), run.path / "config.properties"]:
        for api in ("inference", "management"):
            assert str(run.token(api)).encode() not in log.read_bytes()


def test_torchserve_listens_on_no_public_port(run: RunFolder) -> None:
    """The canaries answer past the gateway."""
    config = Config.read(run.path.parent / "config.properties")
    effective = Config.read(run.path / "config.properties").values
    assert effective["inference_address"].startswith("unix:")
    assert effective["grpc_inference_port"] != config.values["grpc_inference_port"]
    wait_until(lambda: requests.get(f"{config.metrics}/readyz", timeout=10).status_code == 200)
