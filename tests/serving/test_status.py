"""`status`, beside a supervisor that answers as told."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from serving import commands
from serving.config import Config
from serving.errors import ServingError
from serving.runfolder import RunFolder
from tests.running import MakeConfig

ANSWERS = {"ready": True, "reason": None}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.sockets.folder.mkdir()
    return folder


@contextlib.contextmanager
def saying(run: RunFolder, reply: bytes) -> Iterator[None]:
    """A supervisor that answers everything with ``reply``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

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


def status(make_config: MakeConfig, run: RunFolder) -> int:
    return commands.status(Config.read(make_config(run.path, run.path)), run)


@pytest.mark.parametrize(
    ("reply", "code", "lines"),
    [
        ({"ready": True, "models": {"a": ANSWERS, "b": ANSWERS}}, 0, ["a answers", "b answers"]),
        (
            {"ready": False, "models": {"a": ANSWERS, "b": {"ready": False, "reason": "hangs"}}},
            1,
            ["a answers", "b hangs"],
        ),
        ({"ready": False, "reason": "draining"}, 1, ["the server is draining"]),
    ],
)
def test_what_the_supervisor_says(
    make_config: MakeConfig,
    run: RunFolder,
    capsys: pytest.CaptureFixture[str],
    reply: Any,
    code: int,
    lines: list[str],
) -> None:
    with saying(run, json.dumps(reply).encode()):
        assert status(make_config, run) == code
    output = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in output] == lines


def test_no_server(
    make_config: MakeConfig, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / "a.mar").touch()
    assert status(make_config, run) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert "is running: `make start`" in first
    assert second == "a          no connection"
    (run.path / "a.mar").unlink()
    with pytest.raises(ServingError, match="no archives in"):
        status(make_config, run)


def test_another_server_on_the_socket(make_config: MakeConfig, run: RunFolder) -> None:
    (run.path / "a.mar").touch()
    with saying(run, b"hello"):
        assert status(make_config, run) == 1
