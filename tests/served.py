"""The servers that keep the contract: TorchServe behind the gateway, TorchServe alone, Ray.

This is a pytest plugin, loaded by the root conftest. A test with the fixture ``served`` runs
against each of them. The tests of one server run after those of another, wherever they are, and
the server ends with the last of them. A file for one server alone chooses it:
``pytestmark = pytest.mark.parametrize("served", ["bare"], indirect=True)``.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from export.networks import registered
from serving.config import Config
from serving.runfolder import RunFolder
from tests.differences import BARE, RAY
from tests.routes import Server
from tests.running import DEVICE, MakeConfig, Running, of_torchserve, reached, serve


class Start(Protocol):
    """Starts a server of all archives in ``model_store``, in float32, in a new ``folder``."""

    def __call__(
        self, folder: Path, model_store: Path, make_config: MakeConfig
    ) -> contextlib.AbstractContextManager[Server]: ...


@dataclass(frozen=True, kw_only=True)
class Bare(Running):
    """TorchServe without the gateway (GATEWAY=0); ``said()`` is its output so far."""

    process: subprocess.Popen[bytes]
    said: Callable[[], str]


@dataclass(frozen=True, kw_only=True)
class Ray(Server):
    """Ray Serve on this machine; ``said()`` is its output so far, ``logs`` its folder of logs."""

    process: subprocess.Popen[bytes]
    said: Callable[[], str]
    logs: Path


@contextlib.contextmanager
def bare(folder: Path, model_store: Path, make_config: MakeConfig) -> Iterator[Bare]:
    path = make_config(folder, model_store)
    config, run = Config.read(path), RunFolder(folder / "run")
    options = ["--no-gateway", "--device", DEVICE, "--precision", "float32"]
    with serve(path, options=options) as server, reached(config) as common:
        yield Bare(
            **common,
            **of_torchserve(config, run),
            health=config.metrics,
            differs=BARE,
            corpus_step=6,
            process=server.process,
            said=server.said,
        )


@contextlib.contextmanager
def ray(folder: Path, model_store: Path, make_config: MakeConfig) -> Iterator[Ray]:
    path = make_config(folder, model_store)
    config = Config.read(path)
    options = ["--device", DEVICE, "--precision", "float32"]
    with serve(path, module="deploy.ray", options=options) as server, reached(config) as common:
        found = re.search("^logs +(.+)$", server.said(), re.MULTILINE)
        assert found, server.said()
        logs = Path(found[1])
        yield Ray(
            **common,
            health=config.inference,
            workers=partial(replicas, server.process.pid),
            log=partial(log_of_replicas, logs),
            differs=RAY,
            corpus_step=6,
            process=server.process,
            said=server.said,
            logs=logs,
        )


def replicas(pid: int, model: str) -> list[int]:
    """The processes of the model's replicas, which process ``pid`` has started."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[0].startswith(f"ray::ServeReplica:vision:{model}"):
                found.append(process.pid)
    return sorted(found)


def log_of_replicas(logs: Path) -> str:
    return "".join(path.read_text() for path in sorted(logs.glob("replica_*.log")))


STARTS: dict[str, Start] = {"bare": bare, "ray": ray}
_ORDER = ["gateway", *STARTS]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of each other server together, the contract first: other files may end it."""

    def place(item: pytest.Item) -> tuple[int, bool]:
        served = getattr(getattr(item, "callspec", None), "params", {}).get("served")
        at = _ORDER.index(served) if served in _ORDER else 0
        return at, at > 0 and item.path.parent.name != "contract"

    items.sort(key=place)


@pytest.fixture(
    scope="session",
    params=["gateway", *(pytest.param(kind, marks=pytest.mark.slow) for kind in STARTS)],
)
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    model_store: Path,
    make_config: MakeConfig,
) -> Iterator[Server]:
    """Each server. The one behind the gateway is the suite's, in PRECISION."""
    if request.param == "gateway":
        yield request.getfixturevalue("server")
        return
    folder = tmp_path_factory.mktemp(request.param)
    with STARTS[request.param](folder, model_store, make_config) as server:
        yield server


@pytest.fixture
def same_workers(served: Server) -> Iterator[None]:
    """Fails the test if it made a worker restart."""
    before = [served.workers(model) for model in registered()]
    assert all(before)
    yield
    assert [served.workers(model) for model in registered()] == before, "a worker was restarted"


@contextlib.contextmanager
def held(server: Server, model: str) -> Iterator[None]:
    """Suspend ``model``'s workers, for less time than their watchdog allows."""
    workers = [psutil.Process(pid) for pid in server.workers(model)]
    for worker in workers:
        worker.suspend()
    try:
        yield
    finally:
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.resume()
