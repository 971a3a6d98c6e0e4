"""Faults that are refused before TorchServe starts, with the fix in the message."""

from __future__ import annotations

import json
import shutil
import socket
import zipfile
from pathlib import Path

import pytest

from serving.machine import count_gpus
from tests.running import Command, MakeConfig, serve

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path, model_store: Path) -> Path:
    """A copy of the model store, for tests that damage it."""
    copy = tmp_path / "model_store"
    copy.mkdir()
    for name in ("resnet101", "cyclegan"):
        shutil.copy(model_store / f"{name}.mar", copy)
    return copy


def refused(serving: Command, config: Path) -> str:
    run = serving("serve", "--config", config, "--run-dir", config.parent / "run")
    assert run.returncode == 1
    assert not (config.parent / "run").exists(), "it was refused after the start"
    return run.stderr


@pytest.mark.parametrize("verb", ["start", "status"])
def test_a_configuration_that_is_no_text(serving: Command, tmp_path: Path, verb: str) -> None:
    config = tmp_path / "config.properties"
    config.write_bytes(b"\x7fELF\xff\xfe=\x00")
    run = serving(verb, "--config", config, "--run-dir", tmp_path / "run")
    assert run.returncode == 1
    assert run.stderr == f"error: cannot read {config}: it is not a text file\n"


@pytest.mark.parametrize("below", [False, True])
def test_a_run_folder_that_cannot_be(serving: Command, tmp_path: Path, below: bool) -> None:
    file = tmp_path / "file"
    file.touch()
    folder = file / "run" if below else file
    run = serving("start", "--run-dir", folder)
    assert run.returncode == 1
    reason = "Not a directory" if below else "File exists"
    assert run.stderr == (
        f"error: cannot write to {folder} ({reason}): choose another with RUN= (--run-dir)\n"
    )


def test_a_missing_archive(
    serving: Command, make_config: MakeConfig, tmp_path: Path, store: Path
) -> None:
    (store / "cyclegan.mar").unlink()
    message = refused(serving, make_config(tmp_path, store, load_models="cyclegan.mar"))
    assert "cyclegan.mar does not exist: run `make export`" in message


def test_an_empty_model_store(serving: Command, make_config: MakeConfig, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    message = refused(serving, make_config(tmp_path, empty))
    assert message.startswith(f"error: no archives in {empty}: run `make export`")


def test_a_model_that_is_not_in_the_store(
    serving: Command, make_config: MakeConfig, tmp_path: Path, model_store: Path
) -> None:
    config = make_config(tmp_path, model_store)
    run = serving("serve", "--config", config, "--run-dir", tmp_path / "run", "--models", "x,y")
    assert run.returncode == 1
    assert "x.mar does not exist: run `make export`" in run.stderr


def test_an_archive_without_a_task(
    serving: Command, make_config: MakeConfig, tmp_path: Path, store: Path
) -> None:
    """As an export of an earlier version made it."""
    path = store / "cyclegan.mar"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["cyclegan.json"])
    del metadata["spec"]["task"]
    members["cyclegan.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    message = refused(serving, make_config(tmp_path, store))
    assert "cyclegan.mar was exported by an older version: run `make export`" in message


def test_a_damaged_archive(
    serving: Command, make_config: MakeConfig, tmp_path: Path, store: Path
) -> None:
    path = store / "cyclegan.mar"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 64)
    message = refused(serving, make_config(tmp_path, store))
    assert "cyclegan.mar is damaged at cyclegan.pt: run `make archive`" in message


def test_a_truncated_archive(
    serving: Command, make_config: MakeConfig, tmp_path: Path, store: Path
) -> None:
    path = store / "resnet101.mar"
    path.write_bytes(path.read_bytes()[:100_000])
    message = refused(serving, make_config(tmp_path, store))
    assert "resnet101.mar is not a complete archive" in message


def test_one_model_twice(
    serving: Command, make_config: MakeConfig, tmp_path: Path, store: Path
) -> None:
    shutil.copy(store / "cyclegan.mar", store / "resnet101.mar")
    assert "both hold the model cyclegan" in refused(serving, make_config(tmp_path, store))


def test_a_port_that_is_taken(
    serving: Command, make_config: MakeConfig, tmp_path: Path, model_store: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = make_config(tmp_path, model_store, metrics_address=f"http://127.0.0.1:{port}")
        message = refused(serving, config)
    assert f"cannot listen on 127.0.0.1:{port}" in message
    assert "with metrics_address in" in message


def test_a_heap_that_requests_would_fill(
    serving: Command, make_config: MakeConfig, tmp_path: Path, model_store: Path
) -> None:
    message = refused(serving, make_config(tmp_path, model_store, vmargs="-Xmx512m"))
    assert "vmargs in" in message
    assert "allow 0.5: remove -Xmx there" in message


def test_limits_beyond_the_machine_are_a_warning(
    make_config: MakeConfig, tmp_path: Path, model_store: Path
) -> None:
    vmargs = "-Xmx9000g -XX:MaxDirectMemorySize=1g"
    config = make_config(tmp_path, model_store, vmargs=vmargs, load_models="resnet101.mar")
    with serve(config, until="starting") as server:
        assert "warning: at its limits the server takes 90" in server.said()


@pytest.mark.skipif(count_gpus("auto") > 0, reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(
    serving: Command, make_config: MakeConfig, tmp_path: Path, model_store: Path
) -> None:
    config = make_config(tmp_path, model_store)
    where = ("--config", config, "--run-dir", tmp_path / "run")
    run = serving("serve", *where, "--device", "gpu")
    assert run.returncode == 1
    assert "nvidia-smi lists no GPU" in run.stderr
