"""A test run that is killed leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import MakeConfig, processes_of, wait_until

ROOT = Path(__file__).parents[2]
RUN = """
import subprocess
import sys
import time

def test_start_in_the_background(serving):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {folder!r}])
    if {serves!r}:
        where = ("--config", {config!r}, "--run-dir", {folder!r} + "/run")
        serving("start", *where, "--device", "cpu")
    open({folder!r} + "/started", "w").close()
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "serves"), [(signal.SIGTERM, False), (signal.SIGKILL, True)])
def test_a_killed_run_leaves_nothing(
    tmp_path: Path, model_store: Path, make_config: MakeConfig, number: signal.Signals, serves: bool
) -> None:
    config = make_config(tmp_path, model_store, load_models="resnet101.mar")
    test = tmp_path / "test_run.py"
    test.write_text(RUN.format(config=str(config), folder=str(tmp_path), serves=serves))
    options = ["-p", "tests.running", "-c", os.devnull, "--rootdir", str(tmp_path), str(test)]
    # SIGTERM goes to make, as from a person or CI; -o: `install` counts as done.
    make = ["make", "-o", "install", "test", "ARGS=" + " ".join(options)]
    direct = [sys.executable, "-m", "pytest", *options]
    run = subprocess.Popen(
        make if number == signal.SIGTERM else direct,
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until((tmp_path / "started").exists)
        # The run, its child; with a server the supervisor, Java and a worker.
        assert len(processes_of(tmp_path)) >= (5 if serves else 2)
        run.send_signal(number)
        run.wait(60)
        wait_until(lambda: processes_of(tmp_path) == [])
    finally:
        run.kill()
        run.wait(60)
        for process in processes_of(tmp_path):
            process.kill()
