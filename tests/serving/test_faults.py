"""Dead workers, full queues, stalled clients, full disks, and shutdown under load."""

from __future__ import annotations

import contextlib
import json
import os
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

from serving.config import Config
from serving.management import Management
from serving.runfolder import RunFolder
from tests import running
from tests.archives import copy_changed
from tests.running import Command, MakeConfig, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
QUEUE = 10
BATCH = 8
CHANGES = {"load_models": "resnet101.mar", "job_queue_size": str(QUEUE)}


@dataclass(frozen=True)
class Lone:
    """A server of resnet101 alone, with a short queue; ``said()`` is its output so far."""

    process: subprocess.Popen[bytes]
    management: Management
    url: str
    said: Callable[[], str]

    def post(self, picture: bytes) -> requests.Response:
        return requests.post(self.url, data=picture, timeout=TIMEOUT_S)

    def connect(self) -> socket.socket:
        host, port = self.url.split("/")[2].split(":")
        return socket.create_connection((host, int(port)), TIMEOUT_S)

    def pid(self) -> int:
        return self.management.workers("resnet101")[0].pid


@contextlib.contextmanager
def serve(config_path: Path, before: tuple[str, ...] = ()) -> Iterator[Lone]:
    """The process of ``make serve``, once it answers."""
    config, run = Config.read(config_path), RunFolder(config_path.parent / "run")
    url = f"{config.inference}/predictions/resnet101"
    with running.serve(config_path, before=before) as server:
        yield Lone(server.process, Management.of(run), url, server.said)


@pytest.fixture
def config(tmp_path: Path, model_store: Path, make_config: MakeConfig) -> Path:
    return make_config(tmp_path, model_store, **CHANGES)


@pytest.fixture(scope="module")
def lone(
    tmp_path_factory: pytest.TempPathFactory, model_store: Path, make_config: MakeConfig
) -> Iterator[Lone]:
    with serve(make_config(tmp_path_factory.mktemp("faults"), model_store, **CHANGES)) as server:
        yield server


def head(length: int) -> bytes:
    line = "POST /predictions/resnet101 HTTP/1.1"
    return f"{line}\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n".encode()


def test_a_worker_killed_under_load(lone: Lone, jpeg: bytes) -> None:
    """Its own requests fail at once; waiting ones are answered by the next worker."""
    victim = lone.pid()
    done = threading.Event()
    killed = 0.0

    def load() -> list[tuple[float, float, int]]:
        seen = []
        while not done.is_set():
            begun = time.monotonic()
            code = lone.post(jpeg).status_code
            seen.append((begun, time.monotonic(), code))
        return seen

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(load) for _ in range(4)]
        try:
            time.sleep(1)
            killed = time.monotonic()
            psutil.Process(victim).kill()
            wait_until(lambda: "serves again" in lone.said())
            time.sleep(1)
        finally:
            done.set()
        seen = [answer for client in clients for answer in client.result()]
    failed = [(begun, ended) for begun, ended, code in seen if code != 200]
    assert {code for _, _, code in seen} <= {200, 500, 507}
    assert 1 <= len(failed) <= 4
    assert all(ended < killed + TIMEOUT_S / 2 for _, ended in failed)
    assert any(begun > killed for begun, _, code in seen if code == 200)
    assert "resnet101: a worker was lost" in lone.said()


def test_a_full_queue_says_so_at_once(lone: Lone, jpeg: bytes, heavy: bytes) -> None:
    with ThreadPoolExecutor(QUEUE + 30) as pool:
        blocker = pool.submit(lone.post, heavy)
        time.sleep(0.3)

        def ask() -> tuple[requests.Response, bool]:
            return lone.post(jpeg), blocker.done()

        futures = [pool.submit(ask) for _ in range(QUEUE + 25)]
        answers = [future.result() for future in futures]
    codes = [answer.status_code for answer, _ in answers]
    assert set(codes) == {200, 503}
    assert codes.count(200) >= QUEUE - 1, "one place may be a canary's"
    for answer, after in answers:
        if answer.status_code == 503:
            assert answer.json()["code"] == 503
            assert not after, "it waited for the worker"
    assert blocker.result().status_code == 200


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
    """More of the largest uploads than fit into Java's direct memory: others are still served."""
    size = 24_000_000
    java = psutil.Process(psutil.Process(lone.pid()).ppid())
    body = bytes(size - 1)
    before = java.memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            client = stack.enter_context(lone.connect())
            with contextlib.suppress(ConnectionError):
                client.sendall(head(size) + body)
        grown = java.memory_info().rss - before
        assert lone.post(jpeg).status_code == 200
    assert grown < 1.2 * 2**30

    def has_room() -> bool:
        with contextlib.suppress(requests.RequestException):
            return lone.post(bytes(15_000_000)).status_code == 400
        return False

    wait_until(has_room)


def test_accepted_requests_are_answered_before_the_end(config: Path, jpeg: bytes) -> None:
    """The worker is stopped until the queue is full, so all of them are accepted or refused."""
    with serve(config) as server, ThreadPoolExecutor(QUEUE + BATCH) as pool:
        worker = psutil.Process(server.pid())
        worker.suspend()
        try:
            answers = [pool.submit(server.post, jpeg) for _ in range(QUEUE + BATCH)]
            wait_until(lambda: server.management.pending("resnet101") == QUEUE)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "finishing accepted requests" in server.said())
        finally:
            worker.resume()
        codes = [answer.result().status_code for answer in answers]
        assert set(codes) <= {200, 503}
        assert codes.count(200) >= QUEUE - 1, "one place may be a canary's"
        assert server.process.wait(60) == 0
        assert server.said().endswith("stopped\n")


def test_a_second_signal_does_not_wait(config: Path, jpeg: bytes) -> None:
    with serve(config) as server, ThreadPoolExecutor(BATCH + 1) as pool:
        worker = psutil.Process(server.pid())
        worker.suspend()
        answers = [pool.submit(server.post, jpeg) for _ in range(BATCH + 1)]
        wait_until(lambda: server.management.pending("resnet101") > 0)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "finishing" in server.said())
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        for answer in answers:
            with contextlib.suppress(requests.RequestException):
                answer.result()


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
