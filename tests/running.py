"""One real server for the whole test suite, started and stopped by the commands of `make`.

This is a pytest plugin, loaded by the root conftest, so that every folder of tests shares it.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import grpc
import psutil
import pytest
from PIL import Image

from serving.commandline import precision
from serving.config import Config
from serving.inference import connect
from serving.management import Management
from serving.runfolder import RunFolder
from serving.sockets import free_ports
from tests.guardian import Guardian
from tests.routes import UNLIMITED, Server
from vision_client import inference_pb2_grpc

ROOT = Path(__file__).parents[1]

# `make test DEVICE=gpu` runs the suite against GPU workers, PRECISION=bfloat16 in bfloat16. The
# default is not auto, whose choice depends on the CPU.
DEVICE = os.environ.get("DEVICE", "auto")
PRECISION = precision(os.environ.get("PRECISION", "float32"))

TIMEOUT_S = 120
START_S = 300  # of a server, on a busy machine


class Command(Protocol):
    """Runs ``python -m serving`` with ``arguments`` to its end and captures its output."""

    def __call__(
        self, *arguments: str | Path, **environment: str
    ) -> subprocess.CompletedProcess[str]: ...


class MakeConfig(Protocol):
    """Writes the repository's config.properties, on free ports, with ``changes``, to ``folder``."""

    def __call__(self, folder: Path, model_store: Path, **changes: str) -> Path: ...


@dataclass(frozen=True, kw_only=True)
class Running(Server):
    """TorchServe, usually behind the gateway."""

    config: Config
    run: RunFolder
    management: Management


def pytest_configure(config: pytest.Config) -> None:
    """End what the test run has started, even if the run is killed."""
    config.add_cleanup(Guardian().close)


def free_port() -> int:
    return free_ports(1)[0]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process of a server in ``folder``: supervisor, Java, workers, decode processes."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            logs = process.environ().get("LOG_LOCATION", "")  # of Java, and inherited from it
            if str(folder) in " ".join([*process.cmdline(), process.cwd(), logs]):
                processes.append(process)
    return [process for process in processes if process.pid != os.getpid()]


def run_module(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m`` with ``arguments`` in the repository to its end and capture its output."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def serving() -> Command:
    return partial(run_module, "serving")


@dataclass(frozen=True)
class Foreground:
    """A server that ``serve`` has started; ``said()`` is its output so far."""

    process: subprocess.Popen[bytes]
    said: Callable[[], str]


@contextlib.contextmanager
def serve(
    config: Path,
    *,
    until: str = "Ctrl-C",
    before: Sequence[str] = (),
    options: Sequence[str] = (),
    module: str = "serving",
    **environment: str,
) -> Iterator[Foreground]:
    """The process of ``make serve``, on the CPU, once it has printed ``until``.

    Its run folder is beside ``config``. ``before`` is a prefix of its command line, as of ``env``.
    The ``module`` deploy.ray is `make ray-serve`; tests.impatient waits less than `make serve`.
    """
    log = config.parent / "said.log"
    command = [*before, sys.executable, "-m", module, "serve", "--config", str(config)]
    command += ["--run-dir", str(config.parent / "run"), "--device", "cpu", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment},
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    server = Foreground(process, log.read_text)
    try:
        wait_until(lambda: process.poll() is not None or until in server.said(), START_S)
        assert process.poll() is None, server.said()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """AssertionError if ``condition`` does not hold within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    def make(folder: Path, model_store: Path, **changes: str) -> Path:
        changes = {
            "inference_address": f"http://127.0.0.1:{free_port()}",
            "metrics_address": f"http://127.0.0.1:{free_port()}",
            "grpc_inference_port": str(free_port()),
            "drain_seconds": "0",
            "model_store": str(model_store),
            **changes,
        }
        lines = (ROOT / "config.properties").read_text().splitlines()
        kept = [line for line in lines if line.split("=")[0] not in changes]
        path = folder / "config.properties"
        path.write_text("\n".join([*kept, *(f"{k}={v}" for k, v in changes.items())]) + "\n")
        return path

    return make


def pids(management: Management, model: str) -> list[int]:
    """The processes of the model's TorchServe workers."""
    return [worker.pid for worker in management.workers(model)]


@contextlib.contextmanager
def stub_of(address: str) -> Iterator[inference_pb2_grpc.InferenceAPIsServiceStub]:
    """Calls of the gRPC service at ``address``, ``host:port``."""
    with grpc.insecure_channel(address, UNLIMITED) as channel:
        yield inference_pb2_grpc.InferenceAPIsServiceStub(channel)


@contextlib.contextmanager
def reached(config: Config) -> Iterator[dict[str, Any]]:
    """The fields of a Server that follow from its configuration."""
    with stub_of(config.grpc) as stub, connect(config, timeout=TIMEOUT_S) as client:
        yield {
            "rest": config.inference,
            "grpc_address": config.grpc,
            "grpc": stub,
            "client": client,
        }


def of_torchserve(config: Config, run: RunFolder) -> dict[str, Any]:
    """The fields of Running that follow from its configuration and its run folder."""
    management = Management.of(run)
    return {
        "workers": partial(pids, management),
        "log": (run.logs / "model_log.log").read_text,
        "config": config,
        "run": run,
        "management": management,
    }


@contextlib.contextmanager
def started(folder: Path, config_path: Path, serving: Command, precision: str) -> Iterator[Running]:
    """A server of all models from ``start`` to ``stop``, which must leave no process behind."""
    where = ("--config", config_path, "--run-dir", folder / "run")
    start = serving("start", *where, "--device", DEVICE, "--precision", precision)
    assert start.returncode == 0, start.stdout + start.stderr
    config, run = Config.read(config_path), RunFolder(folder / "run")
    with reached(config) as common:
        running = Running(**common, **of_torchserve(config, run), health=config.inference)
        yield running
        workers = [pid for model in running.management.models() for pid in running.workers(model)]
        java = [process.ppid() for process in map(psutil.Process, workers)]
    stop = serving("stop", *where)
    assert stop.returncode == 0, stop.stdout + stop.stderr
    left = [pid for pid in (*workers, *java) if psutil.pid_exists(pid)]
    assert left == [], "`stop` left processes behind"


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    model_store: Path,
    serving: Command,
    make_config: MakeConfig,
) -> Iterator[Running]:
    """The suite's server in PRECISION, for tests that must pass in every precision."""
    folder = tmp_path_factory.mktemp("server")
    with started(folder, make_config(folder, model_store), serving, PRECISION) as server:
        yield server


@pytest.fixture(scope="session")
def front(server: Running) -> str:
    """The URL of the suite's server over REST."""
    return server.config.inference


@pytest.fixture(scope="session")
def float32_server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    model_store: Path,
    serving: Command,
    make_config: MakeConfig,
) -> Iterator[Running]:
    """The suite's server if it runs in float32, else a second one."""
    if PRECISION == "float32":
        yield request.getfixturevalue("server")
        return
    folder = tmp_path_factory.mktemp("float32_server")
    with started(folder, make_config(folder, model_store), serving, "float32") as server:
        yield server


@pytest.fixture(scope="session")
def jpeg(photographs: dict[str, Image.Image]) -> bytes:
    """A photograph of a cat, as a client uploads it."""
    buffer = io.BytesIO()
    photographs["chelsea"].save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
