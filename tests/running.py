"""One real server for the whole suite, started and stopped by the commands a person uses.

A plugin of the root conftest, so that every folder of tests shares it.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
from PIL import Image

from serving.api import Api
from serving.config import Config
from serving.runfolder import RunFolder
from tests.guardian import Guardian
from vision_client import inference_pb2_grpc

ROOT = Path(__file__).parents[1]

# `make test DEVICE=gpu` runs the suite against GPU workers, PRECISION=bfloat16 in bfloat16. Not
# auto by default: what it chooses depends on the CPU.
DEVICE = os.environ.get("DEVICE", "auto")
PRECISION = os.environ.get("PRECISION", "float32")

TIMEOUT_S = 120

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Running:
    """A server that answers, and how to reach it."""

    config: Config
    run: RunFolder
    api: Api
    grpc: inference_pb2_grpc.InferenceAPIsServiceStub

    def url(self, model: str) -> str:
        return f"{self.config.inference}/predictions/{model}"


def pytest_configure(config: pytest.Config) -> None:
    """What a run starts ends with it, even where it is killed."""
    config.add_cleanup(Guardian().close)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process of a server in ``folder``: supervisor, Java, workers, decode processes."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            logs = process.environ().get("LOG_LOCATION", "")  # of Java, and inherited from it
            if str(folder) in " ".join([*process.cmdline(), process.cwd(), logs]):
                found.append(process)
    return [process for process in found if process.pid != os.getpid()]


@pytest.fixture(scope="session")
def serving() -> Command:
    """Runs ``python -m serving ...`` to its end, with what it printed."""

    def call(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "serving", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


@dataclass(frozen=True)
class Foreground:
    """A server that ``serve`` has started; ``said()`` is what it has printed."""

    process: subprocess.Popen[bytes]
    said: Callable[[], str]


@contextlib.contextmanager
def serve(
    config: Path, *, until: str = "Ctrl-C", before: Sequence[str] = (), **environment: str
) -> Iterator[Foreground]:
    """What ``make serve`` runs, on the CPU, once it has said ``until``.

    Its run folder is beside ``config``; ``before`` is a command that runs the rest of its line.
    """
    log = config.parent / "said.log"
    command = [*before, sys.executable, "-m", "serving", "serve", "--config", str(config)]
    command += ["--run-dir", str(config.parent / "run"), "--device", "cpu"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment},
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    found = Foreground(process, log.read_text)
    try:
        wait_until(lambda: process.poll() is not None or until in found.said())
        assert process.poll() is None, found.said()
        yield found
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    """AssertionError where ``condition`` does not hold within TIMEOUT_S."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def make_config() -> Callable[[Path, Path], Path]:
    """The repository's config.properties on free ports and another model store, in a folder."""

    def make(folder: Path, model_store: Path, **changes: str) -> Path:
        changes = {
            "inference_address": f"http://127.0.0.1:{free_port()}",
            "management_address": f"http://127.0.0.1:{free_port()}",
            "metrics_address": f"http://127.0.0.1:{free_port()}",
            "grpc_inference_port": str(free_port()),
            "grpc_management_port": str(free_port()),
            "model_store": str(model_store),
            **changes,
        }
        lines = (ROOT / "config.properties").read_text().splitlines()
        kept = [line for line in lines if line.split("=")[0] not in changes]
        path = folder / "config.properties"
        path.write_text("\n".join([*kept, *(f"{k}={v}" for k, v in changes.items())]) + "\n")
        return path

    return make


@contextlib.contextmanager
def started(folder: Path, config_path: Path, serving: Command, precision: str) -> Iterator[Running]:
    """A server of both models, from ``start`` to ``stop``; nothing of it may be left then."""
    where = ("--config", config_path, "--run-dir", folder / "run")
    began = serving("start", *where, "--device", DEVICE, "--precision", precision)
    assert began.returncode == 0, began.stdout + began.stderr
    config, run = Config.read(config_path), RunFolder(folder / "run")
    with grpc.insecure_channel(config.grpc, [("grpc.max_receive_message_length", -1)]) as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        api = Api(config, run.key_file)
        yield Running(config, run, api, stub)
        workers = [
            worker.pid for model in ("resnet101", "cyclegan") for worker in api.workers(model)
        ]
        java = [process.ppid() for process in map(psutil.Process, workers)]
    stopped = serving("stop", *where)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    left = [pid for pid in (*workers, *java) if psutil.pid_exists(pid)]
    assert left == [], "`stop` left processes behind"


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    model_store: Path,
    serving: Command,
    make_config: Callable[[Path, Path], Path],
) -> Iterator[Running]:
    """The suite's server, in PRECISION: for tests that must pass in every precision."""
    folder = tmp_path_factory.mktemp("server")
    with started(folder, make_config(folder, model_store), serving, PRECISION) as found:
        yield found


@pytest.fixture(scope="session")
def float32_server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    model_store: Path,
    serving: Command,
    make_config: Callable[[Path, Path], Path],
) -> Iterator[Running]:
    """The suite's server where that computes in float32, else one of its own."""
    if PRECISION == "float32":
        yield request.getfixturevalue("server")
        return
    folder = tmp_path_factory.mktemp("float32_server")
    with started(folder, make_config(folder, model_store), serving, "float32") as found:
        yield found


@pytest.fixture(scope="session")
def jpeg(photographs: dict[str, Image.Image]) -> bytes:
    """A photograph of a cat as a client uploads it."""
    buffer = io.BytesIO()
    photographs["chelsea"].save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
