"""Processes of the bench's own: ended whole whatever happens, asked by lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchError

ROOT = Path(__file__).parents[1]
STOP_TIMEOUT_S = 20


@contextlib.contextmanager
def python(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m module arguments`` with pipes for lines; killed on the way out.

    In a session of its own, so that a terminal's Ctrl-C reaches the bench alone.
    """
    # As the server's workers: a floor that is slowed by threads which spin while something else has
    # their core would be no floor.
    environment = {"GOMP_SPINCOUNT": "1000", **os.environ}
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as child:  # fmt: skip
        try:
            yield child
        finally:
            child.kill()


def send_line(child: subprocess.Popen[str], request: Mapping[str, object]) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(request) + "\n")
    child.stdin.flush()


def receive_line(child: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of ``child``'s output; BenchError where it ended instead."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise BenchError(f"{child.args!r} ended with status {child.wait()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


@contextlib.contextmanager
def group(
    command: list[str], *, cwd: Path, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A server and all that it starts: asked to end on the way out, then killed together."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # workers that did not follow
        child.wait()


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_addresses() -> dict[str, str]:
    """TorchServe's address properties, each on a free port of the loopback interface."""
    names = ("inference_address", "management_address", "metrics_address")
    ports = ("grpc_inference_port", "grpc_management_port")
    return {
        **{name: f"http://127.0.0.1:{free_port()}" for name in names},
        **{name: str(free_port()) for name in ports},
    }
