"""serve, start, stop and status: the commands behind `make`."""

from __future__ import annotations

import contextlib
import json
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
from serving.gateway.process import ACTIVE_REQUESTS, active_in
from serving.management import Worker
from serving.plan import Options, Plan, plan
from serving.readiness import START_TIMEOUT_S, wait_until_ready
from serving.runfolder import BUNDLE, RunFolder
from serving.signals import Stopped
from serving.sockets import client
from serving.status import as_text, report
from serving.supervisor import Supervisor, running
from vision_client.client import SERVER

# The drain lasts at most the largest responseTimeout, 600 s in this bundle.
STOP_TIMEOUT_S = 660
STOP_REPORT_S = 5
UNGUARDED = (
    "no gateway (GATEWAY=0): no limits on connections and uploads, no fairness between clients, no "
    "TLS, no API keys, no readiness on the public port, no gRPC statuses for errors in mixed "
    "batches, and every user of this machine reaches TorchServe's gRPC management port"
)


def serve(config: Config, run: RunFolder, options: Options, *, background: bool) -> int:
    """Serve until a signal; ``background`` is whether `make stop` sends it, or Ctrl-C.

    In the background the folder is reserved by the process that started this one.
    """
    try:
        with (
            contextlib.nullcontext() if background else run.reserved(),
            running(prepare(config, run, options), run) as server,
        ):
            announce(server, wait_until_ready(server))
            stops = f"{run.make('status')}, {run.make('stop')}" if background else "Ctrl-C stops it"
            print(stops, flush=True)
            run.write_state(server.plan.config, ready=True)
            server.supervise()
    except Stopped:
        print("stopped")
    return 0


def prepare(config: Config, run: RunFolder, options: Options) -> Plan:
    """Check everything that a start needs, and plan it; ServingError for what is missing."""
    if options.models:
        config = config.select(options.models)
    archives = read_archives(config)
    planned = plan(config, archives, machine.inspect(options.device), options, os.environ)
    exposure = preflight.check_exposure(config, Credentials.of(config), gateway=options.gateway)
    preflight.check_ports(config)
    _ = config.drain_seconds  # a wrong one would only show when the server ends
    preflight.check_space(archives, run)
    root = "serving as root: use an account of its own" if os.geteuid() == 0 else ""
    for warning in filter(None, (root, exposure, *planned.warnings)):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return planned


def announce(server: Supervisor, workers: Mapping[str, Sequence[Worker]]) -> None:
    """Print what is served, on which devices, and where."""
    config = server.plan.config
    print()
    for key in workers:
        description = server.management.describe(key)
        devices = ", ".join(f"{worker.device} (process {worker.pid})" for worker in workers[key])
        model, _, version = key.partition("/")
        print_model(model, devices, description, version)
    print_addresses(config, server.plan.names)
    print(f"health     {config.metrics}/readyz   metrics {config.metrics}/metrics")
    print(f"logs       {server.run.logs}")
    if traces := server.plan.traces:
        print(f"traces     to {traces.endpoint}, of {100 * traces.ratio:g} % of requests")
    where, page = "", ""
    if config.local_inference != SERVER:
        where, page = f" --server {config.local_inference}", f" SERVER={config.local_inference}"
    if os.environ.get(BUNDLE):
        vision = f"{sys.prefix}/bin/vision"
        print(f"try        {vision} status{where}   or, a page, `{vision} page{where}`")
    else:
        print(f"try        .venv/bin/vision status{where}   or, a page, `make ui{page}`")
    if not server.plan.gateway:
        print(f"warning: {UNGUARDED}")
    sys.stdout.flush()


def print_model(model: str, devices: str, description: Mapping[str, Any], version: str) -> None:
    """A line for a model that answers; ``description`` is its worker's own."""
    weights = description["weights"]
    warning = "" if weights["trained"] else ": the answers mean nothing"
    how = f"in {description['precision']} by {description['engine']}"
    print(f"{model:<10} on {devices} {how}, version {version}, weights {weights['name']}{warning}")


def print_addresses(config: Config, models: Sequence[str]) -> None:
    """Where predictions of ``models`` are answered."""
    names = ",".join(models)
    names = names if len(models) == 1 else f"{{{names}}}"
    print(f"REST       {config.inference}/predictions/{names}")
    print(f"gRPC       {config.grpc} (client/vision_client/inference.proto)")


def start(run: RunFolder, arguments: Sequence[str]) -> int:
    """Serve in the background; returns once every model answers or one cannot be loaded."""
    log = run.serve_log
    with run.reserved() as reservation, run.open_log(log) as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "serving", "serve", "--background", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[reservation],  # the child keeps the folder until its end
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
            return 0
        time.sleep(0.1)
    raise ServingError(f"no answer from the server: see {log}")


def stop(run: RunFolder) -> int:
    """Stop the server of this folder, and wait until all of its processes have ended.

    A person stops it, so it closes its listeners at once, without waiting for load balancers.
    """
    supervisor = run.supervisor()
    if supervisor is None:
        print(f"nothing is running in {run.path}")
        return 0
    print(
        f"stopping the server of {run.path} (process {supervisor.pid}): it answers the requests "
        f"that it has accepted, then ends; {run.make('stop')} again drops them",
        flush=True,
    )
    supervisor.send_signal(signal.SIGINT)
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < STOP_TIMEOUT_S:
        try:
            supervisor.wait(STOP_REPORT_S)
            break
        except psutil.TimeoutExpired:
            print(f"{waited + STOP_REPORT_S:.0f} s: waiting for {_unfinished(run)}", flush=True)
    else:
        supervisor.kill()  # TorchServe ends with it
    print("stopped")
    return 0


def _unfinished(run: RunFolder) -> str:
    """What a server that ends waits for."""
    with contextlib.suppress(httpx.HTTPError, ValueError), client(run.sockets.admin) as http:
        reply = http.get(ACTIVE_REQUESTS, timeout=STOP_REPORT_S)
        if active := active_in(reply.raise_for_status().text):
            return f"the answers to {active} accepted request(s)"
    return "TorchServe and its workers to end"


def status(run: RunFolder, *, as_json: bool) -> int:
    """Show each model and worker: 0 if the server is ready, else 1."""
    found = report(run)
    print(json.dumps(found, indent=2) if as_json else as_text(found))
    return 0 if found["ready"] else 1
