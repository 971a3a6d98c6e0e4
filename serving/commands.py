"""serve, start, stop and status: what `make` calls."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil
import requests

from serving.api import Api, Worker
from serving.config import Config
from serving.errors import ServingError
from serving.preflight import check_archives, make_run_folder
from serving.runfolder import RunFolder
from serving.supervisor import START_TIMEOUT_S, Server, Stopped, running


def serve(
    config: Config, run: RunFolder, device: str, workers: int | None, precision: str | None
) -> int:
    """Serve in the foreground until a signal."""
    try:
        with running(config, run, device, workers, precision) as server:
            announce(server, server.wait_until_ready())
            print("Ctrl-C stops it", flush=True)
            run.write_state(ready=True)
            server.wait()
    except Stopped:
        print("stopped")
    return 0


def announce(server: Server, workers: Mapping[str, Sequence[Worker]]) -> None:
    """What is served, on which devices, and where."""
    config = server.config
    print()
    for model, found in workers.items():
        about = server.api.describe(model)
        weights = about["weights"]
        warning = "" if weights["trained"] else ": the answers mean nothing"
        devices = ", ".join(f"{worker.device} (process {worker.pid})" for worker in found)
        precision = about["precision"]
        print(f"{model:<10} on {devices} in {precision}, weights {weights['name']}{warning}")
    print(f"REST       {config.inference}/predictions/{{{','.join(workers)}}}")
    print(f"gRPC       {config.grpc} (client/vision_client/inference.proto)")
    print(f"management {config.management}   metrics {config.metrics}/metrics")
    print(f"logs       {server.run.logs}", flush=True)


def start(run: RunFolder, arguments: Sequence[str]) -> int:
    """Serve in the background; returns once every model answers or one cannot."""
    run.require_free()
    make_run_folder(run)
    log = run.serve_log
    with run.open_log(log) as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "serving", "serve", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    signal.signal(signal.SIGTERM, _exit)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _exit)
    try:
        return _follow(child, run, log)
    except BaseException:  # Ctrl-C too: what is not yet in the background does not stay there
        child.terminate()
        child.wait()
        raise


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _follow(child: subprocess.Popen[bytes], run: RunFolder, log: Path) -> int:
    """Show what ``child`` logs until it serves (0) or has ended (its status)."""
    shown = 0
    deadline = time.monotonic() + START_TIMEOUT_S + 60
    while time.monotonic() < deadline:
        ready, status = run.is_ready(child.pid), child.poll()
        text = log.read_text(errors="replace")
        print(text[shown:], end="", flush=True)
        shown = len(text)
        if status is not None:
            return status or 1
        if ready:
            print("in the background: `make status`, `make stop`")
            return 0
        time.sleep(0.1)
    raise ServingError(f"no answer from the server: see {log}")


def stop(run: RunFolder) -> int:
    """Stop what `start` or `serve` of this folder started, and wait until all of it is gone."""
    supervisor = run.supervisor()
    if supervisor is None:
        print("nothing is running")
        return 0
    supervisor.terminate()
    try:
        supervisor.wait(60)
    except psutil.TimeoutExpired:
        supervisor.kill()  # TorchServe ends with it
    print("stopped")
    return 0


def status(config: Config, run: RunFolder) -> int:
    """Each model and worker as they are: 0 where every model gives a true answer, else 1."""
    api = Api(config, run.key_file)
    if run.supervisor() is None:
        print(f"no server of {run.path} is running: `make start` or `make serve`")
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
