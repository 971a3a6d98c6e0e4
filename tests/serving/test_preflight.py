"""What is refused before TorchServe starts, with the fix in the message."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from serving import gpus, java
from tests.running import serve


@pytest.fixture
def store(tmp_path: Path, model_store: Path) -> Path:
    """A model store of its own, to be damaged."""
    copy = tmp_path / "model_store"
    copy.mkdir()
    for name in ("resnet101", "cyclegan"):
        shutil.copy(model_store / f"{name}.mar", copy)
    return copy


def refused(serving: Any, config: Path) -> str:
    run = serving("serve", "--config", config, "--run-dir", config.parent / "run")
    assert run.returncode == 1
    assert not (config.parent / "run").exists(), "it was refused after the start"
    message: str = run.stderr
    return message


@pytest.mark.parametrize("verb", ["start", "status"])
def test_a_configuration_that_is_no_text(serving: Any, tmp_path: Path, verb: str) -> None:
    config = tmp_path / "config.properties"
    config.write_bytes(b"\x7fELF\xff\xfe=\x00")
    run = serving(verb, "--config", config, "--run-dir", tmp_path / "run")
    assert run.returncode == 1
    assert run.stderr == f"error: cannot read {config}: it is not a text file\n"


@pytest.mark.parametrize("below", [False, True])
def test_a_run_folder_that_cannot_be(serving: Any, tmp_path: Path, below: bool) -> None:
    file = tmp_path / "file"
    file.touch()
    folder = file / "run" if below else file
    run = serving("start", "--run-dir", folder)
    assert run.returncode == 1
    reason = "Not a directory" if below else "File exists"
    assert run.stderr == (
        f"error: cannot write to {folder} ({reason}): choose another with --run-dir\n"
    )


def test_a_missing_archive(serving: Any, make_config: Any, tmp_path: Path, store: Path) -> None:
    (store / "cyclegan.mar").unlink()
    message = refused(serving, make_config(tmp_path, store))
    assert "cyclegan.mar is not there: run `make export`" in message


def test_a_damaged_archive(serving: Any, make_config: Any, tmp_path: Path, store: Path) -> None:
    path = store / "cyclegan.mar"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 64)
    message = refused(serving, make_config(tmp_path, store))
    assert "cyclegan.mar is damaged at cyclegan.pt: run `make archive`" in message


def test_a_truncated_archive(serving: Any, make_config: Any, tmp_path: Path, store: Path) -> None:
    path = store / "resnet101.mar"
    path.write_bytes(path.read_bytes()[:100_000])
    message = refused(serving, make_config(tmp_path, store))
    assert "resnet101.mar is no whole archive" in message


def test_one_model_twice(serving: Any, make_config: Any, tmp_path: Path, store: Path) -> None:
    shutil.copy(store / "cyclegan.mar", store / "resnet101.mar")
    assert "both hold the model cyclegan" in refused(serving, make_config(tmp_path, store))


def test_a_port_that_is_taken(
    serving: Any, make_config: Any, tmp_path: Path, model_store: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = make_config(tmp_path, model_store, metrics_address=f"http://127.0.0.1:{port}")
        message = refused(serving, config)
    assert f"cannot listen on 127.0.0.1:{port}" in message
    assert "change metrics_address" in message


def test_a_heap_that_full_queues_would_fill(
    serving: Any, make_config: Any, tmp_path: Path, model_store: Path
) -> None:
    message = refused(serving, make_config(tmp_path, model_store, vmargs="-Xmx1g"))
    assert "vmargs in" in message
    assert "allow 1.0: set -Xmx4g there" in message


def test_limits_beyond_the_machine_are_told(
    make_config: Any, tmp_path: Path, model_store: Path
) -> None:
    vmargs = "-Xmx9000g -XX:MaxDirectMemorySize=1g"
    config = make_config(tmp_path, model_store, vmargs=vmargs, load_models="resnet101.mar")
    with serve(config, until="starting") as server:
        assert "warning: at its limits the server takes 90" in server.said()


@pytest.mark.skipif(gpus.count("auto") > 0, reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(
    serving: Any, make_config: Any, tmp_path: Path, model_store: Path
) -> None:
    config = make_config(tmp_path, model_store)
    where = ("--config", config, "--run-dir", tmp_path / "run")
    run = serving("serve", *where, "--device", "gpu")
    assert run.returncode == 1
    assert "nvidia-smi lists no GPU" in run.stderr


def test_an_old_java_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(old.parent))
    assert java.version(old) == 8
    found = java.find()
    assert found.path != old
    assert java.version(found.path) == found.version
    assert found.version >= java.OLDEST
