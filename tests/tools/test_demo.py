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
import requests
from PIL import Image

from serving import children
from tests.running import ROOT, START_S, wait_until
from tests.standin import Answering
from tools import demo

# As `make demo`, but without repeated attempts to download.
DEMO = "import sys; from export import weights; weights.ATTEMPTS = 1; from tools import demo; "


@pytest.mark.slow
def test_demo_without_network(
    make_config: Callable[..., Path], tmp_path: Path, model_store: Path
) -> None:
    config = str(make_config(tmp_path, model_store))
    where = ["--config", config, "--run-dir", str(tmp_path / "run")]
    environment = {"TORCH_HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9"}
    log = tmp_path / "demo.log"
    with log.open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-c", DEMO + "sys.exit(demo.main())", *where],
            cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until(lambda: run.poll() is not None or "until Ctrl-C;" in log.read_text(), START_S)
        said = log.read_text()
        assert run.poll() is None, said
        # The last line has an address that works.
        page = requests.get(said.split()[-1], timeout=60)
        assert "Show the networks a photograph" in page.text
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 0
    finally:
        run.kill()
    assert "cannot be downloaded" in said
    assert "UNTRAINED networks" in said
    bars = [line for line in said.splitlines() if " % " in line]
    assert len(bars) == 5
    assert "█" in bars[0]
    assert "/predictions/resnet101\n" in said
    assert "/predictions/cyclegan -o translated.png\n" in said
    with Image.open(tmp_path / "run" / "before_after.png") as picture:
        assert picture.size == (2 * 384 + 8, 256)
    assert not (tmp_path / "run" / "server.json").exists()


def test_the_page_ends_with_the_demo() -> None:
    with Answering.started() as server, demo.page(server.url) as first:
        assert first.startswith("http://127.0.0.1:")
        about = requests.get(f"{first}/about", timeout=60).json()
        assert about["server"] == server.url
        with demo.page(server.url) as second:
            assert second != first, "the usual port is taken now"
    with pytest.raises(requests.ConnectionError):
        requests.get(first, timeout=60)


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
