"""A replica of a model: a process that runs one archive, with the archive's own ``handlers``."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from ray.util.metrics import Counter, Histogram

from deploy.ray.archives import unpack
from deploy.ray.batches import Batches
from deploy.ray.messages import Call, Reply
from deploy.ray.options import ArchiveOptions
from serving.metrics.buckets import REQUESTS, SECONDS

logger = logging.getLogger("ray.serve")

# A replica that has answered within this time needs no canary.
IDLE_S = 5.0


class Model:
    """Loads ``archive`` on ``device`` (``gpu`` or ``cpu``); any exception makes the start fail.

    The network has proved its golden example and answered its canary when the replica is ready.
    """

    def __init__(self, archive: ArchiveOptions, device: str) -> None:
        _log_requests()
        # For as long as this process: decode processes that start later import the code again.
        folder = unpack(archive).path
        # The archive's own code, whatever this node has installed.
        sys.path.insert(0, str(folder))
        import_module("handlers.memory").use_one_heap()  # before any thread starts
        self._code = _code()
        unpacked = self._code.unpacked.read(folder)
        self._service = unpacked.service(self._code.unpacked.find_device(device), os.environ)
        manifest = json.loads((folder / self._code.unpacked.MANIFEST).read_bytes())
        self._version = str(manifest["model"].get("modelVersion", ""))
        self._timeout = unpacked.response_timeout
        self._answered = time.monotonic()
        self._busy = False
        self._metrics = _Metrics(self._service.metadata.name)
        delay_s = unpacked.yaml.get("maxBatchDelay", 100) / 1000
        self._batches = Batches(self._compute, unpacked.batch_size, delay_s)

    async def answer(self, call: Call) -> Reply:
        """Answer one request, in a batch with others that wait; an error affects only its own."""
        return await self._batches.answer(call)

    async def describe(self) -> dict[str, Any]:
        """The metadata of the artefact, and how it is served."""
        description: dict[str, Any] = self._service.describe()
        return description

    async def check_health(self) -> None:
        """Ray replaces the replica after three errors in a row."""
        if self._busy or time.monotonic() - self._answered < IDLE_S:
            return
        canary = self._code.tasks.canary(self._service.task)
        reply = await self.answer(Call(canary.headers, canary.body, {}, "canary"))
        # The configured limits may be below the canary's size.
        if reply.code >= 500:
            raise RuntimeError(f"the canary was answered {reply.body.decode()}")

    def __del__(self) -> None:
        if service := getattr(self, "_service", None):
            service.close()

    def _compute(self, calls: Sequence[Call]) -> list[Reply]:
        stages = self._code.stages.Stages()
        ended = self._service.pool.ended.copy()
        messages = [self._code.request.Message(c.headers, c.body, c.fields, c.id) for c in calls]
        # As TorchServe does, end a replica whose batch takes too long, even if it hangs in C code.
        faulthandler.dump_traceback_later(self._timeout, exit=True)
        self._busy = True
        try:
            answers = self._service.answer(messages, stages)
        finally:
            self._busy = False
            faulthandler.cancel_dump_traceback_later()
        self._answered = time.monotonic()
        self._metrics.report(stages, len(calls), self._service.pool.ended - ended)
        self._code.memory.give_back_after([{"body": c.body} for c in calls])
        served = self._service.metadata.weights.name, self._version
        return [
            Reply(a.code, "application/json", a.to_json(), type(a).__name__, *served)
            if isinstance(a, self._code.errors.RequestError)
            else Reply(a.code, a.content_type, a.body, "", *served)
            for a in answers
        ]


def _code() -> SimpleNamespace:
    """The archive's modules, by name."""
    names = ("errors", "memory", "request", "stages", "tasks", "unpacked")
    return SimpleNamespace(**{name: import_module(f"handlers.{name}") for name in names})


def _log_requests() -> None:
    """Write what the archive's code logs, a line for each batch, to the log of the replica."""
    requests = logging.getLogger("handlers")
    requests.handlers = logger.handlers
    requests.setLevel(logging.INFO)
    requests.propagate = False


class _Metrics:
    """Those of ``make serve`` under the same names, which Ray prefixes with ``ray_``."""

    def __init__(self, model: str) -> None:
        self._seconds = Histogram(
            "vision_stage_seconds", "Time of a batch in a stage", list(SECONDS), ("model", "stage")
        )
        self._requests = Histogram(
            "vision_batch_requests", "Requests in a batch", list(REQUESTS), ("model",)
        )
        self._pixels = Counter(
            "vision_network_pixels", "Pixels that the network has computed", ("model",)
        )
        self._ended = Counter(
            "vision_decode_processes_ended", "Decode processes that have ended", ("model", "reason")
        )
        for metric in (self._seconds, self._requests, self._pixels, self._ended):
            metric.set_default_tags({"model": model})

    def report(self, stages: Any, requests: int, ended: Mapping[str, int]) -> None:
        for stage, spent in stages.seconds.items():
            self._seconds.observe(spent, {"stage": stage})
        self._requests.observe(requests)
        if stages.pixels:  # Ray refuses to add nothing
            self._pixels.inc(stages.pixels)
        for reason, number in ended.items():
            self._ended.inc(number, {"reason": reason})
