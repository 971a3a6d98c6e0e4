"""Dead workers, stalled clients, full disks, and shutdown under load."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from serving import sockets
from serving.config import Config
from serving.management import Management
from serving.runfolder import RunFolder
from tests import running
from tests.archives import copy_changed
from tests.running import Command, MakeConfig, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
ONE_MODEL = {"load_models": "resnet101.mar"}


@dataclass(frozen=True)
class Lone:
    """A server of resnet101 alone; ``said()`` is its output so far."""

    process: subprocess.Popen[bytes]
    run: RunFolder
    url: str
    said: Callable[[], str]

    def post(self, picture: bytes) -> requests.Response:
        return requests.post(self.url, data=picture, timeout=TIMEOUT_S)

    def connect(self) -> socket.socket:
        host, port = self.url.split("/")[2].split(":")
        return socket.create_connection((host, int(port)), TIMEOUT_S)

    def worker(self) -> psutil.Process:
        (worker,) = Management.of(self.run).workers("resnet101")
        return psutil.Process(worker.pid)

    def gateway(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children()
        (gateway,) = (child for child in children if child.name() == "envoy")
        return gateway

    def active(self) -> int:
        """Requests that the gateway has begun to receive and not answered."""
        name = "http.public.downstream_rq_active"
        with sockets.client(self.run.sockets.admin) as http:
            return int(http.get("/stats", params={"filter": f"^{name}$"}).text.partition(":")[2])


@contextlib.contextmanager
def serve(config_path: Path, before: tuple[str, ...] = ()) -> Iterator[Lone]:
    """The process of ``make serve``, once it answers."""
    config, run = Config.read(config_path), RunFolder(config_path.parent / "run")
    url = f"{config.inference}/predictions/resnet101"
    with running.serve(config_path, before=before) as server:
        yield Lone(server.process, run, url, server.said)


@pytest.fixture
def config(tmp_path: Path, model_store: Path, make_config: MakeConfig) -> Path:
    return make_config(tmp_path, model_store, **ONE_MODEL)


@pytest.fixture(scope="module")
def lone(
    tmp_path_factory: pytest.TempPathFactory, model_store: Path, make_config: MakeConfig
) -> Iterator[Lone]:
    # Only memory ends an upload here.
    changes = {**ONE_MODEL, "upload_seconds": "600"}
    with serve(make_config(tmp_path_factory.mktemp("faults"), model_store, **changes)) as server:
        yield server


def head(length: int) -> bytes:
    line = "POST /predictions/resnet101 HTTP/1.1"
    return f"{line}\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n".encode()


def test_a_worker_killed_under_load(lone: Lone, jpeg: bytes) -> None:
    """No client notices: the next worker answers what the killed one had."""
    done = threading.Event()
    killed = 0.0

    def load() -> list[tuple[float, int]]:
        seen = []
        while not done.is_set():
            code = lone.post(jpeg).status_code
            seen.append((time.monotonic(), code))
        return seen

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(load) for _ in range(4)]
        try:
            time.sleep(1)
            killed = time.monotonic()
            lone.worker().kill()
            wait_until(lambda: "serves again" in lone.said())
            time.sleep(1)
        finally:
            done.set()
        seen = [answer for client in clients for answer in client.result()]
    assert {code for _, code in seen} == {200}
    assert any(ended < killed for ended, _ in seen)
    assert re.search("resnet101/[0-9a-f]{8}: a worker was lost", lone.said())


def test_stalled_clients_do_not_delay_others(lone: Lone, jpeg: bytes) -> None:
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(lone.connect()) for _ in range(40)]
        for client in stalled[:20]:
            client.sendall(head(len(jpeg)) + jpeg[: len(jpeg) // 2])  # and no more
        for client in stalled[20:28]:
            client.sendall(head(len(jpeg)) + jpeg)  # and reads nothing
        for _ in range(10):
            assert lone.post(jpeg).status_code == 200
    assert lone.post(jpeg).status_code == 200


def test_stalled_uploads_take_bounded_memory(lone: Lone, jpeg: bytes) -> None:
    """More of the largest uploads than fit into the gateway's memory: others are soon served."""
    size = 24_000_000
    gateway = lone.gateway()
    body = bytes(size - 1)
    before = peak = gateway.memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stalled = stack.enter_context(lone.connect())
            with contextlib.suppress(ConnectionError):
                stalled.sendall(head(size) + body)
            peak = max(peak, gateway.memory_info().rss)
        wait_until(lambda: lone.post(jpeg).status_code == 200)
    assert peak - before < 1.2 * 2**30
    wait_until(lambda: lone.post(bytes(15_000_000)).status_code == 400)


UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0,
    reason="mounts need namespaces, which this machine does not allow",
)


def mounted(script: str) -> tuple[str, ...]:
    """A prefix that runs a command in a namespace where ``script`` has mounted something."""
    return (*UNSHARE, "sh", "-c", script + ' && exec "$@"', "sh")


@needs_namespaces
def test_a_read_only_model_store_serves(config: Path, model_store: Path, jpeg: bytes) -> None:
    store = f"'{model_store}'"
    script = f"mount --bind {store} {store} && mount -o remount,bind,ro {store}"
    with serve(config, mounted(f"{script} && ! touch {store}/x 2>/dev/null")) as server:
        assert server.post(jpeg).status_code == 200


@needs_namespaces
@pytest.mark.parametrize(("place", "option"), [("run", "--run-dir"), ("tmp", "TMPDIR")])
def test_a_full_disk_is_reported_before_the_start(config: Path, place: str, option: str) -> None:
    folder = config.parent / place
    folder.mkdir()
    command = [*mounted(f"mount -t tmpfs -o size=1m tmpfs '{folder}'"), sys.executable, "-m"]
    command += ["serving", "serve", "--config", str(config)]
    run = subprocess.run(
        [*command, "--run-dir", str(config.parent / "run")],
        cwd=ROOT,
        env={**os.environ, **({"TMPDIR": str(folder)} if place == "tmp" else {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert f"{folder} has 1 MiB free" in run.stderr
    assert option in run.stderr
    assert "Traceback" not in run.stderr


def test_a_run_folder_that_cannot_be_written(serving: Command, config: Path) -> None:
    (config.parent / "file").write_text("")
    run = serving("serve", "--config", config, "--run-dir", config.parent / "file" / "run")
    assert run.returncode == 1
    assert "cannot write to" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"request_bytes": 2**25}, "need max_request_size=44804778 or more"),
        ({"network_pixels": 10_000_000}, "need max_response_size=30300000 or more"),
    ],
)
def test_limits_beyond_those_of_torchserve(
    serving: Command, config: Path, tmp_path: Path, limits: dict[str, int], message: str
) -> None:
    """A larger request is refused without our error, a larger answer kills the worker."""
    store = tmp_path / "limits"
    store.mkdir()
    settings = Config.read(config)
    section = json.dumps({"handler": {"limits": limits}})[1:-1].encode()
    archive = settings.model_store / "resnet101.mar"
    copy_changed(archive, store / archive.name, "resnet101.yaml", lambda yaml: yaml + section)
    settings.write(config, model_store=str(store))
    run = serving("serve", "--config", config, "--run-dir", tmp_path / "run")
    assert run.returncode == 1
    assert message in run.stderr


def test_a_second_signal_does_not_wait(lone: Lone, jpeg: bytes) -> None:
    """The last test of this server."""
    with ThreadPoolExecutor(1) as pool:
        lone.worker().suspend()
        answer = pool.submit(lone.post, jpeg)
        wait_until(lambda: lone.active() == 1)
        lone.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "finishing" in lone.said())
        lone.process.send_signal(signal.SIGTERM)
        assert lone.process.wait(60) == 0
        with contextlib.suppress(requests.RequestException):
            answer.result()
