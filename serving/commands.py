"""serve, start, stop and status: what `make` calls."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import psutil
import requests

from serving.api import Api, Worker
from serving.config import Config
from serving.errors import ServingError
from serving.preflight import check_archives
from serving.supervisor import START_TIMEOUT_S, RunFolder, Server, Stopped, kill_group, running


def serve(config: Config, run: RunFolder, device: str, workers: int | None) -> int:
    """Serve in the foreground until a signal."""
    try:
        with running(config, run, device, workers) as server:
            announce(server, server.wait_until_ready())
            print("Ctrl-C stops it", flush=True)
            server.wait()
    except Stopped:
        print("stopped")
    return 0


def announce(server: Server, workers: Mapping[str, Sequence[Worker]]) -> None:
    """What is served, on which devices, and where."""
    config = server.config
    print()
    for model, found in workers.items():
        weights = server.api.describe(model)["weights"]
        warning = "" if weights["trained"] else ": the answers mean nothing"
        devices = ", ".join(f"{worker.device} (process {worker.pid})" for worker in found)
        print(f"{model:<10} on {devices}, weights {weights['name']}{warning}")
    print(f"REST       {config.inference}/predictions/{{{','.join(workers)}}}")
    print(f"gRPC       {config.grpc} (serving/inference.proto)")
    print(f"management {config.management}   metrics {config.metrics}/metrics")
    print(f"logs       {server.run.logs}", flush=True)


def start(config: Config, run: RunFolder, arguments: Sequence[str]) -> int:
    """Serve in the background; returns once every model answers or one cannot."""
    run.path.mkdir(parents=True, exist_ok=True)
    log = run.path / "serve.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "serving", "serve", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    shown = 0
    deadline = time.monotonic() + START_TIMEOUT_S + 60
    while time.monotonic() < deadline:
        ready, status = run.is_ready(), child.poll()
        text = log.read_text(errors="replace")
        print(text[shown:], end="", flush=True)
        shown = len(text)
        if status is not None:
            return status or 1
        if ready and "Ctrl-C" in text:
            print("in the background: `make status`, `make stop`")
            return 0
        time.sleep(0.1)
    child.terminate()
    raise ServingError(f"no answer from the server: see {log}")


def stop(run: RunFolder) -> int:
    """Stop what `start` or `serve` of this folder started, and wait until all of it is gone."""
    supervisor, orphan = run.supervisor(), run.orphan()
    if supervisor is None and orphan is None:
        print("nothing is running")
        return 0
    if supervisor is not None:
        supervisor.terminate()
        try:
            supervisor.wait(60)
        except psutil.TimeoutExpired:
            supervisor.kill()
    if orphan is not None:
        kill_group(orphan.pid)
        run.clear_state()
    print("stopped")
    return 0


def status(config: Config, run: RunFolder) -> int:
    """Each model and worker as they are: 0 where every model gives a true answer, else 1."""
    api = Api(config, run.key_file)
    healthy = True
    for model in check_archives(config):
        refusal = api.refusal(model, timeout=15)
        healthy = healthy and refusal is None
        print(f"{model:<10} {'answers' if refusal is None else refusal}")
        try:
            workers = api.workers(model)
        except requests.RequestException:
            continue
        for worker in workers:
            memory = f", {worker.rss / 2**20:.0f} MiB" if worker.rss else ""
            print(
                f"  worker {worker.id}  {worker.status:<9} {worker.device}, "
                f"process {worker.pid}{memory}"
            )
    return 0 if healthy else 1
