"""`status`, beside a supervisor that answers as told."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from serving import commands
from serving.config import Config
from serving.runfolder import RunFolder
from tests.running import MakeConfig

ANSWERS = {"ready": True, "workers": 1, "wanted": 1, "answered_s_ago": 1.0, "reason": None}
HANGS = ANSWERS | {"ready": False, "reason": "hangs"}


@pytest.fixture
def run(tmp_path: Path, make_config: MakeConfig) -> RunFolder:
    """The folder of a server: this process."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.sockets.folder.mkdir()
    folder.write_state(Config.read(make_config(folder.path, folder.path)), ready=True)
    return folder


@contextlib.contextmanager
def saying(run: RunFolder, replies: Mapping[str, Any]) -> Iterator[None]:
    """A supervisor that answers with ``replies`` by path, and else with a word."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply = json.dumps(replies[self.path]) if self.path in replies else "hello"
            self.send_response(200)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply.encode())

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with socketserver.UnixStreamServer(str(run.sockets.control), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("state", "code", "line"), [(ANSWERS, 0, "b answers"), (HANGS, 1, "b hangs")]
)
def test_each_model_has_a_line(
    run: RunFolder, capsys: pytest.CaptureFixture[str], state: dict[str, Any], code: int, line: str
) -> None:
    health = {"ready": code == 0, "models": {"a": ANSWERS, "b": state}}
    with saying(run, {"/readyz": health}):
        assert commands.status(run, as_json=False) == code
    first, *lines = printed(capsys)
    assert first.startswith("http://127.0.0.1:")
    assert lines == ["a answers", line]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_server_that_drains(
    run: RunFolder, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    with saying(run, {"/readyz": {"ready": False, "reason": "draining"}}):
        assert commands.status(run, as_json=as_json) == 1
    text = capsys.readouterr().out
    reason = json.loads(text)["reason"] if as_json else text.strip()
    assert reason == "the server is draining"


def test_one_json_object(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """TorchServe does not answer here, so what only it knows is null."""
    replies = {
        "/readyz": {"ready": True, "models": {"a": ANSWERS}},
        "/models": {"models": [{"name": "a", "task": "embed", "weights": "mine", "ready": True}]},
        "/queues": {"a": {"waiting": 3, "limit": 100}},
    }
    with saying(run, replies):
        assert commands.status(run, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    config = run.require_config()
    assert found.pop("uptime_s") >= 0
    assert found.pop("process") == run.supervisor().pid  # type: ignore[union-attr]
    unknown = ("precision", "precision_reason", "engine", "engine_reason", "sandbox")
    model: dict[str, Any] = {
        "ready": True,
        "reason": None,
        "task": "embed",
        "weights": "mine",
        **dict.fromkeys(unknown),
        "queue": {"waiting": 3, "limit": 100},
        "wanted": 1,
        "workers": [],
    }
    assert found == {
        "ready": True,
        "reason": None,
        "run": str(run.path),
        "rest": config.inference,
        "grpc": config.grpc,
        "metrics": config.metrics,
        "models": {"a": model},
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """Nothing is said about models that nobody has asked to serve."""
    folder = tmp_path / "run"
    assert commands.status(RunFolder(folder), as_json=as_json) == 1
    text = capsys.readouterr().out
    found = json.loads(text) if as_json else {"reason": text.strip(), "ready": False, "models": {}}
    reason = f"no server of {folder} is running: `make start RUN={folder}`"
    assert (found["reason"], found["ready"], found["models"]) == (reason, False, {})


def test_a_server_that_hangs(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with saying(run, {}):
        assert commands.status(run, as_json=False) == 1
    assert "does not answer: see" in capsys.readouterr().out
