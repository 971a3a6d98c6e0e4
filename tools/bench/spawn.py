"""Other servers, in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import psutil

from serving.errors import ServingError
from tools.bundle import ROOT, free_addresses

START_TIMEOUT_S, END_TIMEOUT_S = 300, 60


@contextlib.contextmanager
def spawned(
    command: Sequence[str],
    log: Path,
    answers: Callable[[], bool],
    end: signal.Signals,
    environment: Mapping[str, str] | None = None,
) -> Iterator[psutil.Process]:
    """A process that is ready when ``answers`` says so, and is sent the signal ``end`` afterwards.

    ``log`` has its output. ServingError if it ends or does not answer in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers():
            if server.poll() is not None or time.monotonic() > deadline:
                raise ServingError(f"{' '.join(command[1:4])} did not start: see {log}")
            time.sleep(0.5)
        yield psutil.Process(server.pid)
    finally:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            # Not to its children: Ray's would end before they have ended theirs.
            server.send_signal(end)
            server.wait(END_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def free_ports() -> tuple[str, tuple[str, str, str]]:
    """A URL on loopback for REST, and the free ports of REST, gRPC and metrics."""
    addresses = free_addresses("inference", "metrics")
    url, metrics = addresses["inference_address"], addresses["metrics_address"]
    port, metrics_port = (each.rpartition(":")[2] for each in (url, metrics))
    return url, (port, addresses["grpc_inference_port"], metrics_port)


def ray_server(
    command: Sequence[str], log: Path, url: str, environment: Mapping[str, str] | None = None
) -> contextlib.AbstractContextManager[psutil.Process]:
    """The same for a server of Ray's at ``url``, which is ready when its models are."""

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/readyz", timeout=5).status_code == httpx.codes.OK
        return False

    return spawned(command, log, answers, signal.SIGTERM, environment)
