"""A real server whose processes are stopped, killed and starved: it answers again."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from serving.config import Config
from serving.management import Management
from serving.runfolder import RunFolder
from tests import running
from tests.archives import copy_changed
from tests.exposition import value
from tests.impatient import HANG_S
from tests.running import MakeConfig, wait_until

pytestmark = pytest.mark.slow

MODEL = "resnet101"
TIMEOUT_S = 120


@dataclass(frozen=True)
class Lone:
    """A server of one model; ``said()`` is its output so far."""

    config: Config
    run: RunFolder
    said: Callable[[], str]

    def post(self, picture: bytes) -> int:
        """The status of a prediction, 0 without one."""
        try:
            url = f"{self.config.inference}/predictions/{MODEL}"
            return requests.post(url, data=picture, timeout=TIMEOUT_S).status_code
        except requests.RequestException:
            return 0

    def readiness(self) -> tuple[int, Any]:
        """Status and JSON of /readyz."""
        reply = requests.get(f"{self.config.metrics}/readyz", timeout=10)
        return reply.status_code, reply.json()

    def is_ready(self) -> bool:
        return self.readiness()[0] == 200

    def actions(self, action: str, model: str = "") -> float:
        """How often the supervisor has done ``action``."""
        return value(
            self.config.metrics, "vision_watchdog_actions_total", action=action, model=model
        )

    def lost(self) -> float:
        """How many workers have ended."""
        return value(self.config.metrics, "vision_workers_lost_total", model=MODEL)

    def worker(self) -> psutil.Process:
        (worker,) = Management.of(self.run).workers(MODEL)
        return psutil.Process(worker.pid)

    def java(self) -> psutil.Process:
        return psutil.Process(self.worker().ppid())

    def envoy(self) -> psutil.Process:
        supervisor = self.run.supervisor()
        assert supervisor is not None
        (envoy,) = [child for child in supervisor.children() if "envoy" in child.name()]
        return envoy


@pytest.fixture(scope="module")
def lone(
    tmp_path_factory: pytest.TempPathFactory, model_store: Path, make_config: MakeConfig
) -> Iterator[Lone]:
    """TorchServe gives up a worker that cannot start after four seconds; see also impatient."""
    folder = tmp_path_factory.mktemp("supervision")
    store = folder / "model_store"
    store.mkdir()
    impatient = b"\nmaxRetryTimeoutInSec: 4\n"
    archive = model_store / f"{MODEL}.mar"
    copy_changed(archive, store / archive.name, f"{MODEL}.yaml", lambda yaml: yaml + impatient)
    path = make_config(folder, store)
    with running.serve(path, module="tests.impatient") as server:
        yield Lone(Config.read(path), RunFolder(folder / "run"), server.said)


@pytest.fixture(autouse=True)
def ready_before(lone: Lone) -> None:
    wait_until(lone.is_ready)


@contextlib.contextmanager
def load(lone: Lone, picture: bytes, clients: int) -> Iterator[list[tuple[float, float, int]]]:
    """Clients that ask one request after the other; begin, end and status of each."""
    seen: list[tuple[float, float, int]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            begun = time.monotonic()
            code = lone.post(picture)
            seen.append((begun, time.monotonic(), code))

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask) for _ in range(clients)]
        try:
            yield seen
        finally:
            done.set()
        for client in asking:
            client.result()


def test_a_worker_that_hangs_is_replaced(lone: Lone, jpeg: bytes) -> None:
    """At most its batch is lost; without the watchdog nobody is answered for two minutes."""
    before = lone.actions("kill_worker", MODEL)
    with load(lone, jpeg, clients=4) as seen:
        time.sleep(2)
        stopped = time.monotonic()
        lone.worker().suspend()
        wait_until(lambda: not lone.is_ready())
        wait_until(lone.is_ready)
        time.sleep(1)
    assert lone.actions("kill_worker", MODEL) == before + 1
    assert "does not compute: it is killed" in lone.said()
    lost = [end for _, end, code in seen if code != 200]
    assert len(lost) <= 4
    first = min(end for begun, end, code in seen if code == 200 and end > stopped + HANG_S / 2)
    print(f"answered again after {first - stopped:.1f} s, {len(lost)} requests lost")
    assert first < stopped + TIMEOUT_S / 2


def test_a_worker_that_computes_for_long_is_left_alone(lone: Lone, heavy: bytes) -> None:
    before = lone.actions("kill_worker", MODEL)
    pid = lone.worker().pid
    with load(lone, heavy, clients=8):
        time.sleep(2 * HANG_S)
        assert lone.is_ready(), lone.readiness()
    assert lone.worker().pid == pid
    assert lone.actions("kill_worker", MODEL) == before


def test_a_killed_worker_makes_the_model_unready_until_it_answers(lone: Lone) -> None:
    before = lone.lost()
    lone.worker().kill()
    wait_until(lambda: not lone.is_ready())
    status, report = lone.readiness()
    assert (status, report["ready"]) == (503, False)
    assert report["models"][MODEL]["reason"]
    wait_until(lone.is_ready)
    assert lone.lost() == before + 1


def test_a_worker_that_torchserve_has_given_up(lone: Lone, jpeg: bytes) -> None:
    """Its file is gone for a while: TorchServe would never start it again."""
    before = lone.actions("scale_again", MODEL)
    (unpacked,) = (lone.run.sockets.folder / "models").glob(f"*/{MODEL}.pt")
    away = unpacked.with_suffix(".away")
    unpacked.rename(away)
    try:
        lone.worker().kill()
        wait_until(lambda: lone.actions("scale_again", MODEL) > before)
    finally:
        away.rename(unpacked)
    assert re.search(f"{MODEL}/.{{8}}: TorchServe has given up starting a worker", lone.said())
    wait_until(lone.is_ready)
    assert lone.post(jpeg) == 200


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_torchserve_is_started_again(lone: Lone, jpeg: bytes, number: signal.Signals) -> None:
    """Dead, or deaf: its sockets accept connections that nobody answers."""
    before = lone.actions("restart_torchserve")
    java = lone.java()
    java.send_signal(number)
    wait_until(lambda: lone.actions("restart_torchserve") > before)
    assert not lone.is_ready()
    wait_until(lone.is_ready)
    assert lone.java().pid != java.pid
    assert lone.post(jpeg) == 200
    why = "ended with status -9" if number == signal.SIGKILL else "does not answer its management"
    assert f"TorchServe {why}" in lone.said()


def test_the_gateway_is_started_again(lone: Lone, jpeg: bytes) -> None:
    before = lone.actions("restart_gateway")
    envoy = lone.envoy()
    envoy.kill()
    wait_until(lambda: lone.actions("restart_gateway") > before)
    wait_until(lambda: lone.post(jpeg) == 200)
    assert lone.envoy().pid != envoy.pid
    assert "the gateway ended with status -9" in lone.said()
