"""Which workers the watchdog kills and which it leaves alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest
from prometheus_client import Counter

from serving import watchdog as module
from serving.actions import Actions
from serving.health import Health
from serving.logs import WorkerLog
from serving.management import Management, Worker
from serving.watchdog import Watchdog, cpu_seconds_of
from tests.running import wait_until

pytestmark = pytest.mark.slow

SLEEP = "import time; time.sleep(60)"
COMPUTE = "while True: pass"


class Scaling:
    """The requests that a management API has got."""

    def __init__(self) -> None:
        self.sizes: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.sizes.append(request.url.params["min_worker"])
        return httpx.Response(202, json={})


@pytest.fixture
def scaling() -> Scaling:
    return Scaling()


@pytest.fixture
def watchdog(scaling: Scaling, monkeypatch: pytest.MonkeyPatch) -> Watchdog:
    """In a hurry."""
    monkeypatch.setattr(module, "HANG_S", 1.0)
    monkeypatch.setattr(module, "GIVEN_UP_S", 0.2)
    http = httpx.Client(transport=httpx.MockTransport(scaling.answer), base_url="http://x")
    health = Health({"a": 2})
    actions = Actions(Counter("actions", "", ["action", "model"], registry=None))
    return Watchdog(lambda: {"a": 2}, Management(http), health, actions)


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[psutil.Process]:
    """A process that runs the test's code."""
    process = subprocess.Popen([sys.executable, "-c", request.param])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def look(watchdog: Watchdog, log: WorkerLog, pid: int, seconds: float) -> None:
    """Let the watchdog look at the one worker for ``seconds``."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        watchdog.check([log], {"a": [Worker("9000", pid, "READY", "cpu", 0)]})
        time.sleep(0.1)


def busy() -> WorkerLog:
    return WorkerLog("9000", "a", "WORKER_MODEL_LOADED", busy_since=time.monotonic())


@pytest.mark.parametrize("worker", [SLEEP], indirect=True)
def test_a_worker_that_hangs_is_killed(
    watchdog: Watchdog, worker: psutil.Process, capsys: pytest.CaptureFixture[str]
) -> None:
    log = busy()
    look(watchdog, log, worker.pid, 0.8)
    assert worker.status() != psutil.STATUS_ZOMBIE, "it has not hung for long enough"
    look(watchdog, log, worker.pid, 0.5)
    wait_until(lambda: worker.status() == psutil.STATUS_ZOMBIE)
    (line,) = capsys.readouterr().out.splitlines()
    assert f"a: worker 9000 (process {worker.pid}) has had a batch for 1 s" in line


@pytest.mark.parametrize("worker", [COMPUTE], indirect=True)
def test_a_worker_that_computes_is_left_alone(watchdog: Watchdog, worker: psutil.Process) -> None:
    look(watchdog, busy(), worker.pid, 2.5)
    assert worker.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("worker", [SLEEP], indirect=True)
def test_an_idle_worker_is_left_alone(watchdog: Watchdog, worker: psutil.Process) -> None:
    look(watchdog, WorkerLog("9000", "a", "WORKER_MODEL_LOADED"), worker.pid, 1.5)
    assert worker.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("worker", [SLEEP], indirect=True)
def test_each_batch_has_its_time(watchdog: Watchdog, worker: psutil.Process) -> None:
    """Short batches that use no measurable time are no hang."""
    for _ in range(4):
        look(watchdog, busy(), worker.pid, 0.5)
        look(watchdog, WorkerLog("9000", "a", "WORKER_MODEL_LOADED"), worker.pid, 0.11)
    assert worker.status() != psutil.STATUS_ZOMBIE


def test_workers_that_torchserve_gave_up_are_started_again(
    watchdog: Watchdog, scaling: Scaling, capsys: pytest.CaptureFixture[str]
) -> None:
    log = WorkerLog("9000", "a", "WORKER_STOPPED", stopped_since=time.monotonic())
    watchdog.check([log], {})
    assert scaling.sizes == [], "the next attempt may be announced yet"
    time.sleep(0.3)
    watchdog.check([log], {})
    watchdog.check([log], {})
    assert scaling.sizes == ["0", "2"]
    assert "a: TorchServe has given up" in capsys.readouterr().out


def test_the_cpu_time_of_children_counts() -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {COMPUTE!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(lambda: (cpu_seconds_of(parent.pid) or 0) > 1.0)
    finally:
        for child in psutil.Process(parent.pid).children():
            child.kill()
        parent.wait(10)
    assert cpu_seconds_of(parent.pid) is None
