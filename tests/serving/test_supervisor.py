"""The processes of a server, with a Java that does something else."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.settings import Settings
from serving.archives import Archive
from serving.config import Config
from serving.errors import ServingError
from serving.machine import Java, inspect
from serving.plan import Options, Plan, plan
from serving.readiness import wait_until_ready
from serving.runfolder import RunFolder
from serving.signals import Stopped
from serving.supervisor import Supervisor, running
from tests.running import MakeConfig, processes_of, wait_until


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    """Nothing may be left but the logs."""
    with tempfile.TemporaryDirectory() as temporary:  # a short path, which sockets need
        monkeypatch.setattr(tempfile, "tempdir", temporary)
        folder = RunFolder(tmp_path / "run")
        folder.create()
        yield folder
        assert processes_of(tmp_path) == []
        assert list(Path(temporary).iterdir()) == []
        assert folder.supervisor() is None
        assert not folder.sockets.folder.is_symlink()


def make(tmp_path: Path, make_config: MakeConfig, java: str) -> Plan:
    """The plan of a server whose Java is the shell script ``java``."""
    script = tmp_path / "java"
    script.write_text(f"#!/bin/sh\n{java}\n")
    script.chmod(0o755)
    config = Config.read(make_config(tmp_path, tmp_path))
    (tmp_path / "a.mar").touch()
    archive = Archive(tmp_path / "a.mar", "a", "classify", "untrained", {}, Settings(), {}, "1.0")
    machine = replace(inspect("cpu"), java=Java(script, 17))
    return plan(config, [archive], machine, Options(gateway=False), os.environ)


def test_an_end_while_starting_quotes_the_output(
    tmp_path: Path, make_config: MakeConfig, run: RunFolder
) -> None:
    planned = make(tmp_path, make_config, "echo no memory; exit 3")
    with (
        pytest.raises(ServingError, match=r"TorchServe ended while starting:\nno memory"),
        running(planned, run) as server,
    ):
        wait_until_ready(server)
    written = Config.read(run.path / "config.properties")
    assert (written.values["load_models"], written.values["number_of_gpu"]) == ("a-1.0.mar", "0")


def start_and_stop(server: Supervisor, run: RunFolder) -> None:
    wait_until((run.path / "started").exists)
    assert run.supervisor() is not None
    assert not run.is_ready(os.getpid())
    os.kill(os.getpid(), signal.SIGTERM)
    wait_until_ready(server)


def test_a_signal_while_starting_ends_everything(
    tmp_path: Path, make_config: MakeConfig, run: RunFolder
) -> None:
    planned = make(tmp_path, make_config, f"sleep 60 & touch {run.path}/started; wait")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), running(planned, run) as server:
        start_and_stop(server, run)
    assert signal.getsignal(signal.SIGTERM) is before
