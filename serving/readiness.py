"""Waits until every model answers a request correctly."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

import httpx

from serving.errors import ServingError
from serving.management import Management, Worker
from serving.supervisor import POLL_S, Supervisor

START_TIMEOUT_S = 300
REPORT_EVERY_S = 10


def wait_until_ready(server: Supervisor) -> Mapping[str, Sequence[Worker]]:
    """Wait until each model has all of its workers and answers correctly; its workers by key.

    Raises ServingError as soon as a model cannot be loaded or TorchServe ends, Stopped after a
    signal.
    """
    plan = server.plan
    started = reported = time.monotonic()
    device = f"{plan.machine.gpus} GPU(s)" if plan.machine.gpus else "the CPU"
    print(f"starting {', '.join(plan.names)} on {device}", flush=True)
    missing = plan.names
    while missing:
        server.check_starting()
        _check_loading(server)
        now = time.monotonic()
        names = ", ".join(missing)
        if now - started > START_TIMEOUT_S:
            raise ServingError(f"no answer from {names} after {START_TIMEOUT_S} s")
        if now - reported > REPORT_EVERY_S:
            reported = now
            print(f"{names}: loading, {now - started:.0f} s", flush=True)
        for model in filter(server.health.is_ready, missing):
            print(f"{model:<10} answers after {now - started:.1f} s", flush=True)
        missing = [model for model in missing if not server.health.is_ready(model)]
        time.sleep(POLL_S)
    return server.workers.by_key


def _check_loading(server: Supervisor) -> None:
    """ServingError with the cause if a model cannot be loaded."""
    recovered: set[str] = set()
    logs = server.torchserve.logs

    def concerns(key: str) -> bool:
        return key not in recovered

    while failure := logs.find_failure(concerns):
        if not _all_ready(server.management, failure.key):
            time.sleep(1)  # the traceback comes through another pipe
            failure = logs.find_failure(concerns) or failure
            lines = [
                f"{failure.model} cannot be loaded: {failure.line}",
                failure.output,
                f"the complete output is in {server.run.logs}",
            ]
            raise ServingError("\n".join(filter(None, lines)))
        recovered.add(failure.key)


def _all_ready(management: Management, key: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        workers = management.workers(key)
        return bool(workers) and all(worker.status == "READY" for worker in workers)
    return False
