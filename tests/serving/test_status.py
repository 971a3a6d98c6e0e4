"""`status` and `stop`, beside a server that answers as told."""

from __future__ import annotations

import contextlib
import json
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving import commands
from serving.config import Config
from serving.errors import ServingError
from serving.gateway.process import ACTIVE_REQUESTS
from serving.plan import Options
from serving.runfolder import RunFolder
from tests.running import MakeConfig, wait_until

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
def saying(run: RunFolder, replies: Mapping[str, Any], socket: str = "control") -> Iterator[None]:
    """A process that answers at ``socket`` with ``replies`` by path, and else with a word."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply = replies.get(self.path, "hello")
            reply = reply if isinstance(reply, str) else json.dumps(reply)
            self.send_response(200)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply.encode())

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with socketserver.UnixStreamServer(str(run.sockets.folder / socket), Handler) as server:
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
    assert re.fullmatch(r"http://127\.0\.0\.1:.* of .*, up \d:\d\d:\d\d", first)
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


VERSION = {"version": "ab", "role": "default", "share": 1.0, "weights": "mine", "ready": True}


def test_a_version_that_gets_a_share(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    candidate = {**VERSION, "version": "cd", "role": "candidate", "share": 0.1, "ready": False}
    replies = {
        "/readyz": {"ready": True, "models": {"a": ANSWERS}},
        "/models": {"models": [{"name": "a", "task": "embed", "weights": "mine", "version": "ab"}]},
        "/versions": {"a": [VERSION, candidate]},
    }
    with saying(run, replies):
        assert commands.status(run, as_json=False) == 0
    text = capsys.readouterr().out
    assert "version ab, weights mine" in text
    assert "candidate cd, weights mine: gets 0.1 of the requests, does not answer" in text


def test_one_json_object(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """TorchServe does not answer here, so what only it knows is null."""
    replies = {
        "/readyz": {"ready": True, "models": {"a": ANSWERS}},
        "/models": {
            "models": [
                {"name": "a", "task": "embed", "weights": "mine", "version": "ab", "ready": True}
            ]
        },
        "/versions": {"a": [VERSION]},
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
        "version": "ab",
        "versions": [VERSION],
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


def test_a_bundle_names_its_own_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISION_RUN", "/opt/vision/run")
    assert RunFolder(tmp_path).make("stop") == f"`/opt/vision/run stop --run-dir {tmp_path}`"


def test_a_server_that_hangs(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with saying(run, {}):
        assert commands.status(run, as_json=False) == 1
    assert "does not answer: see" in capsys.readouterr().out


def test_a_folder_is_for_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its checks to its end; `start` leaves the folder to its child, which outlives it."""
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "serving.py").write_text(
        "import pathlib, time\n"
        "print('up', flush=True)\n"
        "while not pathlib.Path('end').exists(): time.sleep(0.02)\n"
    )
    monkeypatch.chdir(tmp_path)
    children: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(commands, "_follow", lambda child, *_: children.append(child))
    commands.start(folder, [])
    try:
        wait_until(lambda: folder.serve_log.read_text() == "up\n")
        with pytest.raises(ServingError, match=f"a server of {folder.path} starts already: wait"):
            commands.start(folder, [])
        with pytest.raises(ServingError, match=f"a server of {folder.path} starts already: wait"):
            commands.serve(Config(tmp_path, {}), folder, Options(), background=False)
        assert folder.serve_log.read_text() == "up\n"
    finally:
        (tmp_path / "end").touch()
        children[0].wait(60)
    with folder.reserved():
        pass


SERVER = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit())
print("up", flush=True)
try:
    time.sleep(60)
finally:
    sys.stdin.read()
"""


def test_stop_says_what_it_waits_for(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the gateway has two requests, then it has ended, then the server."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=pipe, stdout=pipe) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        process = psutil.Process(child.pid)
        monkeypatch.setattr(RunFolder, "supervisor", lambda _: process)
        monkeypatch.setattr(commands, "STOP_REPORT_S", 0.1)
        stopping = threading.Thread(target=commands.stop, args=[run])
        said = ""
        with saying(run, {ACTIVE_REQUESTS: "http.public.downstream_rq_active: 2\n"}, "admin"):
            stopping.start()
            said += until(capsys, "waiting for the answers to 2 accepted request(s)")
        run.sockets.admin.unlink()
        said += until(capsys, "waiting for TorchServe and its workers to end")
        child.stdin.close()
        stopping.join(60)
    assert f"stopping the server of {run.path} (process {child.pid})" in said
    assert f"`make stop RUN={run.path}` again drops them" in said
    assert capsys.readouterr().out.endswith("stopped\n")


def until(capsys: pytest.CaptureFixture[str], expected: str) -> str:
    """What is printed until ``expected`` is."""
    said = ""

    def says() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return expected in said

    wait_until(says)
    return said
