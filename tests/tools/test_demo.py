"""What a newcomer sees who has just cloned the project."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image

from serving import children
from tests.running import ROOT, Command, wait_until
from tools import demo


@pytest.mark.slow
def test_demo_without_network(
    tool: Command, make_config: Callable[..., Path], tmp_path: Path, model_store: Path
) -> None:
    config = make_config(tmp_path, model_store)
    run = tool(
        "demo", "--once", "--config", config, "--run-dir", tmp_path / "run",
        TORCH_HOME=str(tmp_path), HTTPS_PROXY="http://127.0.0.1:9",
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "cannot be downloaded" in run.stderr
    assert "UNTRAINED networks" in run.stdout
    bars = [line for line in run.stdout.splitlines() if " % " in line]
    assert len(bars) == 5
    assert "█" in bars[0]
    assert "/predictions/resnet101\n" in run.stdout
    assert "/predictions/cyclegan -o translated.png\n" in run.stdout
    with Image.open(tmp_path / "run" / "before_after.png") as picture:
        assert picture.size == (2 * 384 + 8, 256)
    assert not (tmp_path / "run" / "server.json").exists()


def test_a_second_interrupt_is_passed_on() -> None:
    """The server stops taking requests after the first signal, and ends at the second."""
    script = "trap 'trap \"exit 7\" INT; echo first' INT; echo up; while :; do sleep 0.05; done"
    child = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"

    def interrupt() -> None:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        demo.end(child)
        assert child.returncode == 7
    finally:
        child.kill()
        interrupter.join()
        child.stdout.close()


def test_the_server_of_a_killed_demo_ends(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    # Python for ``serving.children``, which becomes the server: one that only sleeps.
    real = f'[ "$1" = -IS ] && exec {sys.executable} "$@"'
    fake.write_text(f"#!/bin/sh\n{real}\nexec sleep 3600\n")
    fake.chmod(0o755)
    code = (
        "import sys, time; from tools import demo; sys.executable = sys.argv[1]; "
        "print(demo.start([]).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(fake)], cwd=ROOT, stdout=subprocess.PIPE
    ) as killed:
        assert killed.stdout is not None
        server = psutil.Process(int(killed.stdout.readline()))
        killed.kill()
    wait_until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def test_a_child_whose_parent_has_died_already_does_not_start() -> None:
    *prepare, parent, command = children.bound(["true"])
    assert int(parent) == os.getpid()
    run = subprocess.run([*prepare, parent, command], timeout=60, check=False)
    assert run.returncode == 0
    run = subprocess.run([*prepare, "1", command], timeout=60, check=False)
    assert run.returncode == 1


def test_models_of_other_tasks_are_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    models = {"a": "classify", "b": "segment", "c": "translate"}
    assert demo.showable(models) == {"a": "classify", "c": "translate"}
    assert capsys.readouterr().out == "skipping b: the demo does not know the task segment\n"
