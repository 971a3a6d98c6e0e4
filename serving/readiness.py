"""Waits until every model answers a request correctly."""

from __future__ import annotations

import contextlib
import time

import requests

from serving.errors import ServingError
from serving.inference import connect
from serving.management import Management, Worker
from serving.plan import ModelPlan
from serving.process import POLL_S, Process
from vision_client.health import check_model

START_TIMEOUT_S = 300
ANSWER_TIMEOUT_S = 60
REPORT_EVERY_S = 10


def wait_until_ready(process: Process) -> dict[str, list[Worker]]:
    """Wait until each model has all of its workers and answers correctly; its workers by model.

    Raises ServingError as soon as a model cannot be loaded or TorchServe ends, Stopped after a
    signal.
    """
    plan = process.plan
    started = reported = time.monotonic()
    device = f"{plan.machine.gpus} GPU(s)" if plan.machine.gpus else "the CPU"
    print(f"starting {', '.join(plan.names)} on {device}", flush=True)
    ready: dict[str, list[Worker]] = {}
    scaled: set[str] = set()
    with connect(plan.config, process.run, timeout=ANSWER_TIMEOUT_S) as client:
        while missing := [planned for planned in plan.models if planned.model not in ready]:
            _check_loading(process)
            names = ", ".join(planned.model for planned in missing)
            now = time.monotonic()
            if now - started > START_TIMEOUT_S:
                raise ServingError(f"no answer from {names} after {START_TIMEOUT_S} s")
            if now - reported > REPORT_EVERY_S:
                reported = now
                print(f"{names}: loading, {now - started:.0f} s", flush=True)
            time.sleep(POLL_S)
            for planned in missing:
                model = planned.model
                with contextlib.suppress(requests.RequestException):
                    if model not in scaled:
                        _scale(process.management, planned)
                        scaled.add(model)
                    workers = process.management.workers(model)
                    if sum(worker.status == "READY" for worker in workers) < planned.workers:
                        continue
                    if check_model(client, model, planned.archive.task).answers:
                        ready[model] = workers
                        seconds = time.monotonic() - started
                        print(f"{model:<10} answers after {seconds:.1f} s", flush=True)
    return ready


def _scale(management: Management, planned: ModelPlan) -> None:
    """Ask for the planned workers if TorchServe has started another number, by the YAML."""
    if planned.workers != len(management.workers(planned.model)):
        management.scale(planned.model, planned.workers)


def _check_loading(process: Process) -> None:
    """ServingError with the cause if a model cannot be loaded or TorchServe has ended."""
    process.stop.check()
    recovered: set[str] = set()
    while failure := process.logs.find_failure(recovered):
        if not _all_ready(process.management, failure.model):
            time.sleep(1)  # the traceback comes through another pipe
            failure = process.logs.find_failure(recovered) or failure
            lines = [
                f"{failure.model} cannot be loaded: {failure.line}",
                failure.output,
                f"the complete output is in {process.run.logs}",
            ]
            raise ServingError("\n".join(filter(None, lines)))
        recovered.add(failure.model)
    process.check_alive()


def _all_ready(management: Management, model: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        workers = management.workers(model)
        return bool(workers) and all(worker.status == "READY" for worker in workers)
    return False
