"""The process around TorchServe, with a Java that does something else."""

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
from serving.process import Process, Stopped, running
from serving.readiness import wait_until_ready
from serving.runfolder import RunFolder
from tests.running import MakeConfig, processes_of, wait_until


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    """Nothing may be left but the logs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    folder = RunFolder(tmp_path / "run")
    folder.create()
    yield folder
    assert processes_of(tmp_path) == []
    assert list((tmp_path / "temporary").iterdir()) == []
    assert folder.supervisor() is None


def make(tmp_path: Path, make_config: MakeConfig, java: str) -> Plan:
    """The plan of a server whose Java is the shell script ``java``."""
    script = tmp_path / "java"
    script.write_text(f"#!/bin/sh\n{java}\n")
    script.chmod(0o755)
    config = Config.read(make_config(tmp_path, tmp_path))
    archive = Archive(tmp_path / "a.mar", "a", "classify", {}, Settings())
    machine = replace(inspect("cpu"), java=Java(script, 17))
    return plan(config, [archive], machine, Options(), os.environ)


def test_an_end_while_starting_quotes_the_output(
    tmp_path: Path, make_config: MakeConfig, run: RunFolder
) -> None:
    planned = make(tmp_path, make_config, "echo no memory; exit 3")
    with (
        pytest.raises(ServingError, match=r"TorchServe ended while starting:\nno memory"),
        running(planned, run) as process,
    ):
        wait_until_ready(process)
    written = Config.read(run.path / "config.properties")
    assert (written.values["load_models"], written.values["number_of_gpu"]) == ("a.mar", "0")


def start_and_stop(process: Process, run: RunFolder) -> None:
    wait_until((run.path / "started").exists)
    assert run.supervisor() is not None
    assert not run.is_ready(os.getpid())
    os.kill(os.getpid(), signal.SIGTERM)
    wait_until_ready(process)


def test_a_signal_while_starting_ends_everything(
    tmp_path: Path, make_config: MakeConfig, run: RunFolder
) -> None:
    planned = make(tmp_path, make_config, "sleep 60 & touch started; wait")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), running(planned, run) as process:
        start_and_stop(process, run)
    assert signal.getsignal(signal.SIGTERM) is before
