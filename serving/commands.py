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
from typing import Any, NoReturn

import httpx
import psutil

from serving import machine, preflight
from serving.archives import read_archives
from serving.config import Config
from serving.errors import ServingError
from serving.gateway.credentials import Credentials
from serving.management import Management, Worker
from serving.plan import Options, Plan, plan
from serving.readiness import START_TIMEOUT_S, wait_until_ready
from serving.runfolder import RunFolder
from serving.signals import Stopped
from serving.sockets import client
from serving.supervisor import Supervisor, running

STATUS_TIMEOUT_S = 15
# The drain lasts at most the largest responseTimeout, 600 s in this bundle.
STOP_TIMEOUT_S = 660
UNGUARDED = (
    "no gateway (GATEWAY=0): no limits on connections and uploads, no fairness between clients, no "
    "TLS, no API keys, no readiness on the public port, no gRPC statuses for errors in mixed "
    "batches, and every user of this machine reaches TorchServe's gRPC management port"
)


def serve(config: Config, run: RunFolder, options: Options) -> int:
    """Serve in the foreground until a signal."""
    try:
        with running(prepare(config, run, options), run) as server:
            announce(server, wait_until_ready(server))
            print("Ctrl-C stops it", flush=True)
            run.write_state(server.plan.names, ready=True)
            server.supervise()
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
    exposure = preflight.check_exposure(config, Credentials.of(config), gateway=options.gateway)
    preflight.check_ports(config)
    preflight.check_space(archives, run)
    root = "serving as root: use an account of its own" if os.geteuid() == 0 else ""
    for warning in filter(None, (root, exposure, planned.warning)):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return planned


def announce(server: Supervisor, workers: Mapping[str, Sequence[Worker]]) -> None:
    """Print what is served, on which devices, and where."""
    config = server.plan.config
    print()
    for model in workers:
        description = server.management.describe(model)
        weights = description["weights"]
        warning = "" if weights["trained"] else ": the answers mean nothing"
        devices = ", ".join(f"{worker.device} (process {worker.pid})" for worker in workers[model])
        how = f"in {description['precision']} by {description['engine']}"
        print(f"{model:<10} on {devices} {how}, weights {weights['name']}{warning}")
    print(f"REST       {config.inference}/predictions/{{{','.join(workers)}}}")
    print(f"gRPC       {config.grpc} (client/vision_client/inference.proto)")
    print(f"health     {config.metrics}/readyz   metrics {config.metrics}/metrics")
    print(f"logs       {server.run.logs}")
    if not server.plan.gateway:
        print(f"warning: {UNGUARDED}")
    sys.stdout.flush()


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
    """Stop the server of this folder, and wait until all of its processes have ended.

    A person stops it, so it closes its listeners at once, without waiting for load balancers.
    """
    supervisor = run.supervisor()
    if supervisor is None:
        print("nothing is running")
        return 0
    supervisor.send_signal(signal.SIGINT)
    try:
        supervisor.wait(STOP_TIMEOUT_S)
    except psutil.TimeoutExpired:
        supervisor.kill()  # TorchServe ends with it
    print("stopped")
    return 0


def status(config: Config, run: RunFolder) -> int:
    """Show each model and worker: 0 if the server is ready, else 1."""
    report = _readiness(run)
    if report is None:
        print(f"no server of {run.path} is running: `make start` or `make serve`")
        for model in run.models() or [path.stem for path in config.archives]:
            print(f"{model:<10} no connection")
        return 1
    if "models" not in report:
        print(f"the server is {report['reason']}")
        return 1
    management = Management.of(run)
    for model, state in report["models"].items():
        print(f"{model:<10} {'answers' if state['ready'] else state['reason']}")
        _print_description(management, model)
        _print_workers(management, model)
    return 0 if report["ready"] else 1


def _readiness(run: RunFolder) -> dict[str, Any] | None:
    """The supervisor's report at /readyz, or None if it does not answer."""
    try:
        with client(run.sockets.control) as http:
            report: dict[str, Any] = http.get("/readyz", timeout=STATUS_TIMEOUT_S).json()
            return report
    except (httpx.HTTPError, ValueError):
        return None


def _print_description(management: Management, model: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        description = management.describe(model, timeout=STATUS_TIMEOUT_S)
        for key in ("precision", "engine"):
            print(f"  {key} {description[key]}: {description[f'{key}_reason']}")
        print(f"  decoders confined by {', '.join(description['sandbox']) or 'nothing'}")


def _print_workers(management: Management, model: str) -> None:
    try:
        workers = management.workers(model, timeout=STATUS_TIMEOUT_S)
    except httpx.HTTPError:
        return
    for worker in workers:
        memory = f", {worker.rss / 2**20:.0f} MiB" if worker.rss else ""
        print(
            f"  worker {worker.id}  {worker.status:<9} {worker.device}, "
            f"process {worker.pid}{memory}"
        )
