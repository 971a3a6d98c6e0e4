"""Rollout and rollback on a real server: no request fails, and what is broken changes nothing.

The versions of the model ``tiny`` give different pictures: an answer shows which one computed it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
import pytest
import requests
import torch
from torch import nn

from serving import rollout_commands
from serving.canary import PICTURE
from serving.config import Config
from serving.errors import ServingError
from serving.runfolder import RunFolder
from serving.status import report
from tests.archives import copy_changed
from tests.deploy import tiny
from tests.deploy.tiny import MODEL
from tests.handlers.support import raw
from tests.routes import prediction
from tests.running import MakeConfig, reached, serve, wait_until

pytestmark = pytest.mark.slow

TIMEOUT_S = 60
PAUSE_S = 0.05
FIRST, SECOND = "aaaa0001", "bbbb0002"
YAML = (
    "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\nmaxBatchDelay: 1\nresponseTimeout: 100\n"
    "handler: {precision: float32, engine: torchscript}\n"
)


class Negative(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -x.tanh()


@dataclass
class Seen:
    """The versions that have answered, by protocol, and what went wrong."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass
class Lone:
    """A server of ``tiny`` with its commands; ``bodies`` are the answers of the versions."""

    config_path: Path
    process: subprocess.Popen[bytes]
    bodies: dict[str, bytes] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return Config.read(self.config_path)

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.config_path.parent / "run")

    @property
    def store(self) -> Path:
        return self.config.model_store

    def roll_out(self, archive: Path | None = None, share: float = 1.0) -> None:
        """As the command does, without a process for it."""
        rollout_commands.roll_out(self.run, MODEL, archive, share)

    def roll_back(self) -> None:
        rollout_commands.roll_back(self.run, MODEL)

    def versions(self) -> list[tuple[str, str, float]]:
        """Version, role and share of each."""
        listed = report(self.run)["models"].get(MODEL, {}).get("versions", [])
        return [(each["version"], each["role"], each["share"]) for each in listed]

    def post(self, path: str = "") -> requests.Response:
        url = f"{self.config.inference}/predictions/{MODEL}{path}"
        return requests.post(url, data=PICTURE, timeout=TIMEOUT_S)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.store.glob("*.mar")}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """first.mar, second.mar, and those that must be refused."""
    folder = tmp_path_factory.mktemp("archives")
    tiny.write(folder / "first.mar", YAML, weights="first", version=FIRST)
    tiny.write(folder / "second.mar", YAML, weights="second", version=SECOND, network=Negative())
    tiny.write(
        folder / "golden.mar", YAML, version="cccc0003",
        golden_output__f32=raw(torch.zeros(1, 3, 8, 8)),
    )  # fmt: skip
    (folder / "cut.mar").write_bytes((folder / "second.mar").read_bytes()[:-1000])

    def to_classify(record: bytes) -> bytes:
        metadata = json.loads(record)
        metadata["spec"] |= {"task": "classify", "output": "classes", "labels": ["a", "b"]}
        return json.dumps(metadata).encode()

    copy_changed(folder / "second.mar", folder / "task.mar", "tiny.json", to_classify)
    slow = YAML.replace("100", "1000")
    tiny.write(folder / "slow.mar", slow, version="dddd0004")
    return folder


@pytest.fixture(scope="module")
def config_path(
    tmp_path_factory: pytest.TempPathFactory, make_config: MakeConfig, archives: Path
) -> Path:
    folder = tmp_path_factory.mktemp("rollout")
    store = folder / "model_store"
    store.mkdir()
    shutil.copy(archives / "first.mar", store / "tiny.mar")
    return make_config(folder, store)


@pytest.fixture(scope="module")
def lone(config_path: Path) -> Iterator[Lone]:
    with serve(config_path) as server:
        lone = Lone(config_path, server.process)
        lone.bodies[FIRST] = lone.post().content
        yield lone


@contextlib.contextmanager
def load(lone: Lone) -> Iterator[Seen]:
    """Clients over REST and gRPC that ask again and again, until the end of the context.

    Their pauses leave the worker of a new version time to start.
    """
    seen, end = Seen(), threading.Event()

    def rest() -> None:
        with requests.Session() as session:
            while not end.wait(PAUSE_S):
                url = f"{lone.config.inference}/predictions/{MODEL}"
                try:
                    answer = session.post(url, data=PICTURE, timeout=TIMEOUT_S)
                    answer.raise_for_status()
                    note("REST", answer.headers["x-model-version"], answer.content)
                except (requests.RequestException, KeyError) as error:
                    seen.faults.append(repr(error))

    def rpc() -> None:
        with reached(lone.config) as common:
            while not end.wait(PAUSE_S):
                try:
                    answer, call = common["grpc"].Predictions.with_call(
                        prediction(MODEL, data=PICTURE), timeout=TIMEOUT_S
                    )
                    version = dict(call.initial_metadata())["x-model-version"]
                    note("gRPC", version, answer.prediction)
                except (grpc.RpcError, KeyError) as error:
                    seen.faults.append(repr(error))

    def note(protocol: str, version: str, body: bytes) -> None:
        seen.answers[protocol, version] += 1
        if lone.bodies.setdefault(version, body) != body:
            seen.faults.append(f"an answer over {protocol} is not that of {version}")

    clients = [threading.Thread(target=each) for each in (rest, rest, rpc, rpc)]
    for client in clients:
        client.start()
    try:
        yield seen
    finally:
        end.set()
        for client in clients:
            client.join(TIMEOUT_S)


def test_no_request_fails(lone: Lone, archives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with load(lone) as seen:
        lone.roll_out(archives / "second.mar", 0.25)
        assert f"{MODEL}/{SECOND}: answers after" in capsys.readouterr().out
        assert lone.versions() == [(FIRST, "default", 0.75), (SECOND, "candidate", 0.25)]
        seen.answers.clear()
        wait_until(lambda: seen.answers.total() >= 200)
        for protocol in ("REST", "gRPC"):
            assert seen.answers[protocol, SECOND] > 0
        assert seen.answers["REST", SECOND] + seen.answers["gRPC", SECOND] == pytest.approx(
            seen.answers.total() / 4, abs=35
        )

        assert lone.post(f"/{SECOND}").headers["x-model-weights"] == "second"
        assert lone.post("/cccc0003").json()["type"] == "ModelNotFound"

        lone.roll_out()  # completes it
        assert lone.versions() == [(SECOND, "default", 1.0), (FIRST, "previous", 0.0)]
        assert_only(seen, SECOND)
        assert (
            requests.get(lone.config.inference + "/models", timeout=9).json()["models"][0][
                "version"
            ]
            == SECOND
        )

        lone.roll_back()
        assert lone.versions() == [(FIRST, "default", 1.0)]
        assert_only(seen, FIRST)
    assert seen.faults == []
    assert lone.bodies[FIRST] != lone.bodies[SECOND]
    assert list(lone.files()) == ["tiny.mar"]


def assert_only(seen: Seen, version: str) -> None:
    """From now on all answers are of that version; those on the way may still be of another."""
    time.sleep(1)
    seen.answers.clear()
    wait_until(lambda: seen.answers.total() >= 20)
    assert {each for _, each in seen.answers} == {version}


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        ("golden.mar", "misses its golden example"),
        ("cut.mar", "is not a complete archive"),
        ("task.mar", "has the task classify, and tiny answers with translate"),
        ("first.mar", "is version aaaa0001 of tiny, which is loaded already"),
        ("slow.mar", "has responseTimeout 1000, and the gateway was started for at most 100 s"),
        ("none.mar", "none.mar does not exist"),
    ],
)
def test_a_broken_archive_changes_nothing(
    lone: Lone, archives: Path, archive: str, reason: str
) -> None:
    before = lone.files()
    with load(lone) as seen, pytest.raises(ServingError, match=f"^nothing has changed: .*{reason}"):
        lone.roll_out(archives / archive)
    assert seen.faults == []
    assert {version for _, version in seen.answers} <= {FIRST}
    assert lone.versions() == [(FIRST, "default", 1.0)]
    assert lone.files() == before
    links = [path.name for path in (lone.run.path / "sockets" / "store").iterdir()]
    assert links == [f"{MODEL}-{FIRST}.mar"]


def test_an_interrupted_rollout_is_undone(lone: Lone, archives: Path) -> None:
    where = ["--config", str(lone.config_path), "--run-dir", str(lone.run.path)]
    command = [sys.executable, "-m", "serving", "rollout", *where, "--model", MODEL]
    command += ["--archive", str(archives / "second.mar")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    while "loads beside" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    process.stdout.close()
    wait_until(lambda: list(lone.files()) == ["tiny.mar"])
    assert lone.versions() == [(FIRST, "default", 1.0)]
    with pytest.raises(ServingError, match="nothing to roll back to"):
        lone.roll_back()


def test_strangers_cannot_roll_out(lone: Lone) -> None:
    for path in ("/rollout", "/rollback", "/versions", "/models?url=tiny.mar"):
        answer = requests.post(lone.config.inference + path, json={}, timeout=TIMEOUT_S)
        assert answer.status_code in (404, 405), path
        answer = requests.post(lone.config.metrics + path, json={}, timeout=TIMEOUT_S)
        assert answer.status_code in (404, 405), path


def test_a_restart_keeps_the_version(
    lone: Lone, config_path: Path, archives: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of TorchServe, whatever has become of the files meanwhile; and of the whole server."""
    lone.roll_out(archives / "second.mar")
    promoted = (lone.store / "tiny.mar").read_bytes()
    (lone.store / "new").write_bytes(b"an export that nobody has rolled out")
    (lone.store / "new").replace(lone.store / "tiny.mar")
    supervisor = lone.run.supervisor()
    assert supervisor is not None
    (java,) = (p for p in supervisor.children() if "java" in p.name())
    java.kill()
    wait_until(lambda: not psutil.pid_exists(java.pid) and answers(lone, SECOND))
    assert answers(lone, FIRST, f"/{FIRST}")
    assert lone.versions() == [(SECOND, "default", 1.0), (FIRST, "previous", 0.0)]

    (lone.store / "tiny.mar").write_bytes(promoted)
    lone.process.terminate()
    assert lone.process.wait(TIMEOUT_S) == 0
    with serve(config_path):
        assert answers(lone, SECOND)
        assert lone.versions() == [(SECOND, "default", 1.0)]
        lone.roll_back()
        assert "is not loaded since the server was started" in capsys.readouterr().out
        assert answers(lone, FIRST)
        assert lone.files() == {"tiny.mar": (archives / "first.mar").read_bytes()}
        with pytest.raises(ServingError, match="nothing to roll back to"):
            lone.roll_back()


def answers(lone: Lone, version: str, path: str = "") -> bool:
    with contextlib.suppress(requests.RequestException):
        answer = lone.post(path)
        return answer.ok and answer.headers["x-model-version"] == version
    return False
