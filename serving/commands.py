"""serve, start, stop and status: the commands behind `make`."""

from __future__ import annotations

import contextlib
import os
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

from serving import machine, preflight
from serving.archives import read_archives
from serving.config import Config
from serving.errors import ServingError
from serving.inference import connect
from serving.management import Management, Worker
from serving.plan import Options, Plan, plan
from serving.process import Process, Stopped, running
from serving.readiness import START_TIMEOUT_S, wait_until_ready
from serving.runfolder import RunFolder
from vision_client import Client
from vision_client.health import check_model
from vision_client.tasks import DECODERS

STATUS_TIMEOUT_S = 15


def serve(config: Config, run: RunFolder, options: Options) -> int:
    """Serve in the foreground until a signal."""
    try:
        with running(prepare(config, run, options), run) as process:
            workers = wait_until_ready(process)
            announce(process, workers)
            print("Ctrl-C stops it", flush=True)
            run.write_state(process.plan.names, ready=True)
            process.wait(workers)
    except Stopped:
        print("stopped")
    return 0


def prepare(config: Config, run: RunFolder, options: Options) -> Plan:
    """Check everything that a start needs, and plan it; ServingError for what is missing."""
    run.require_free()
    if options.models:
        config = config.select(options.models)
    archives = read_archives(config)
    planned = plan(config, archives, machine.inspect(options.device), options, os.environ)
    preflight.check_ports(config)
    preflight.check_space(archives, run)
    if os.geteuid() == 0:
        print("warning: serving as root: use an account of its own", file=sys.stderr, flush=True)
    if planned.warning:
        print(f"warning: {planned.warning}", file=sys.stderr, flush=True)
    return planned


def announce(process: Process, workers: Mapping[str, Sequence[Worker]]) -> None:
    """Print what is served, on which devices, and where."""
    config = process.plan.config
    print()
    for model in workers:
        description = process.management.describe(model)
        weights = description["weights"]
        warning = "" if weights["trained"] else ": the answers mean nothing"
        devices = ", ".join(f"{worker.device} (process {worker.pid})" for worker in workers[model])
        precision = description["precision"]
        print(f"{model:<10} on {devices} in {precision}, weights {weights['name']}{warning}")
    print(f"REST       {config.inference}/predictions/{{{','.join(workers)}}}")
    print(f"gRPC       {config.grpc} (client/vision_client/inference.proto)")
    print(f"management {config.management}   metrics {config.metrics}/metrics")
    print(f"logs       {process.run.logs}", flush=True)


def start(run: RunFolder, arguments: Sequence[str]) -> int:
    """Serve in the background; returns once every model answers or one cannot be loaded."""
    run.require_free()
    run.create()
    log = run.serve_log
    with run.open_log(log) as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "serving", "serve", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    signal.signal(signal.SIGTERM, _exit)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is ignored under nohup
        signal.signal(signal.SIGHUP, _exit)
    try:
        return _follow(child, run, log)
    except BaseException:  # Ctrl-C too: leave nothing in the background
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
    """Stop the server of this folder, and wait until all of its processes have ended."""
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
    """Show each model and worker: 0 if every model answers correctly, else 1."""
    management = Management(config, run)
    if run.supervisor() is None:
        print(f"no server of {run.path} is running: `make start` or `make serve`")
    try:
        listed = management.models(timeout=STATUS_TIMEOUT_S)
    except requests.RequestException:
        listed = None  # each model then says why
    models = list(dict.fromkeys([*_expected(config, run, listed), *(listed or ())]))
    healthy = True
    with connect(config, run, timeout=STATUS_TIMEOUT_S) as client:
        for model in models:
            if listed is not None and model not in listed:
                healthy = False
                print(f"{model:<10} is missing: the server does not list it")
                continue
            error = _find_error(client, management, model)
            healthy = healthy and error is None
            print(f"{model:<10} {error or 'answers'}")
            if error is None:
                _print_sandbox(management, model)
            _print_workers(management, model)
    return 0 if healthy else 1


def _expected(config: Config, run: RunFolder, listed: Sequence[str] | None) -> Sequence[str]:
    """The models that must be served: those that the server of ``run`` was started with, else those
    of ``config``, which must have one unless the server has ``listed`` some.
    """
    try:
        return run.models() or [path.stem for path in config.archives]
    except ServingError:
        if not listed:
            raise
        return ()


def _find_error(client: Client, management: Management, model: str) -> str | None:
    """Why ``model`` does not answer correctly, or None."""
    try:
        task = management.describe(model, timeout=STATUS_TIMEOUT_S)["spec"]["task"]
        if task not in DECODERS:
            return f"cannot be checked: the client has no decoder for the task {task!r}"
        return check_model(client, model, task).error
    except requests.Timeout:
        return f"no answer within {STATUS_TIMEOUT_S} s"
    except requests.ConnectionError:
        return "no connection"
    except requests.RequestException as error:
        return str(error)
    except (KeyError, TypeError):
        return "is not a model of this project"


def _print_sandbox(management: Management, model: str) -> None:
    with contextlib.suppress(requests.RequestException):
        layers = management.describe(model, timeout=STATUS_TIMEOUT_S).get("sandbox", ())
        print(f"  decoders confined by {', '.join(layers) or 'nothing'}")


def _print_workers(management: Management, model: str) -> None:
    try:
        workers = management.workers(model)
    except requests.RequestException:
        return
    for worker in workers:
        memory = f", {worker.rss / 2**20:.0f} MiB" if worker.rss else ""
        print(
            f"  worker {worker.id}  {worker.status:<9} {worker.device}, "
            f"process {worker.pid}{memory}"
        )
