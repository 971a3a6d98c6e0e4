"""What a worker tells the server's supervisor: what it serves, and each batch that it has answered.

A report is a datagram of JSON to the unix socket that the environment variable REPORTS names::

    {"process": 4711, "model": "resnet101", "serves": {"task": "classify", ...},
     "memory": {"used": 5e9, "total": 8e10}, "batches": [{"stages": {"decode": 0.01, ...},
     "requests": 2, "pixels": 100352, "ended": {"crash": 1}, "traced": {...}}]}

``traced`` is as in handlers/traces.py, and only there if requests of the batch are traced.
``memory`` is in bytes, and null on a CPU. A worker never waits for the supervisor: a report that
cannot be sent goes with the next one.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

import torch

from handlers.stages import Stages

# Batches kept for a supervisor that does not read; the oldest are dropped. They fit a datagram.
_KEPT = 200


class Reports:
    """Reports of the model ``model`` on ``device`` to the socket ``path``.

    ``serves`` has the values of the info metric by label.
    """

    def __init__(
        self, path: str, model: str, serves: Mapping[str, str], device: torch.device
    ) -> None:
        self._path = path
        self._head = {"process": os.getpid(), "model": model, "serves": dict(serves)}
        self._device = device
        self._batches: list[dict[str, Any]] = []

    def add(
        self,
        stages: Stages,
        requests: int,
        ended: Mapping[str, int],
        traced: Mapping[str, Any] | None = None,
    ) -> None:
        """Report a batch of ``requests``; ``ended`` are its decode processes that ended.

        ``traced`` is sent with this report or never, so that unsent batches stay small.
        """
        batch: dict[str, Any] = {"requests": requests, "pixels": stages.pixels}
        batch["ended"] = dict(ended)
        for unsent in self._batches:
            unsent.pop("traced", None)
        if traced:
            batch["traced"] = traced
        seconds = {stage: round(spent, 6) for stage, spent in stages.seconds.items()}
        self._batches = [*self._batches[1 - _KEPT :], {"stages": seconds, **batch}]
        self.send()

    def send(self) -> None:
        """Send what is known and not yet sent."""
        report = {**self._head, "memory": self._memory(), "batches": self._batches}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(json.dumps(report).encode(), self._path)
            except OSError:  # its queue is full, or the supervisor has ended
                return
        self._batches = []

    def _memory(self) -> dict[str, int] | None:
        if self._device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(self._device)
        return {"used": total - free, "total": total}
