"""Records which models answer. Several threads write and read it.

A record belongs to a version of a model and has its key, MODEL/VERSION; a model's name stands for
its default version. On Ray a model has one version, and its name is the key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# A model is ready only if it has answered a request, or worked on one, within this time.
FRESH_S = 15.0


@dataclass
class _Record:
    """The state of a model; times are those of ``Health``'s clock.

    ``failure`` is why the last canary failed, ``down_since`` when the last worker was lost; None if
    it did not fail, or if there is a worker. ``wanted`` is the planned number of workers.
    """

    wanted: int
    down_since: float | None
    workers: int = 0
    answered: float | None = None
    worked: float | None = None
    failure: str | None = None
    weights: str | None = None


class Health:
    """The health of the versions in ``wanted``, the number of workers by key.

    Each is the default of its model. A model is ready while all of its workers are ready and it has
    answered a request within FRESH_S, from a client or a canary. A worker that computes a batch
    counts as an answer, because a batch may take longer.
    """

    def __init__(
        self, wanted: Mapping[str, int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records = {key: _Record(number, clock()) for key, number in wanted.items()}
        self._defaults = {key.partition("/")[0]: key for key in wanted}
        self.draining = False

    @property
    def models(self) -> list[str]:
        return list(self._defaults)

    def reports(self) -> dict[str, dict[str, Any]]:
        """The state of every version that is watched, by key."""
        with self._lock:
            return {key: self._report(record) for key, record in self._records.items()}

    def add(self, key: str, wanted: int) -> None:
        """Watch a further version of a model."""
        with self._lock:
            self._records[key] = _Record(wanted, self._clock())

    def remove(self, key: str) -> None:
        """Forget a version that is not the default; what is said of it later is ignored."""
        with self._lock:
            self._records.pop(key, None)

    def set_default(self, key: str) -> None:
        """From now on the model's name stands for this version."""
        with self._lock:
            self._defaults[key.partition("/")[0]] = key

    def succeeded(self, model: str, weights: str | None = None) -> None:
        """``model`` has answered a request with 200; unknown models are ignored."""
        with self._lock:
            if record := self._known(model):
                record.answered = self._clock()
                record.failure = None
                record.weights = weights or record.weights

    def failed(self, model: str, reason: str) -> None:
        """A canary of ``model`` got no correct answer."""
        with self._lock:
            if record := self._known(model):
                record.failure = reason

    def worked(self, model: str) -> None:
        """A worker of ``model`` is computing a batch."""
        with self._lock:
            if record := self._known(model):
                record.worked = self._clock()

    def set_workers(self, model: str, ready: int) -> None:
        with self._lock:
            if record := self._known(model):
                self._set_workers(record, ready)

    def lose(self, reason: str) -> None:
        """TorchServe has ended, and every worker with it."""
        with self._lock:
            for record in self._records.values():
                self._set_workers(record, 0)
                record.answered = record.worked = None
                record.failure = reason

    def needs_canary(self, model: str, idle_s: float) -> bool:
        """Whether ``model`` has a worker, and failed or has not answered for ``idle_s`` seconds."""
        with self._lock:
            record = self._known(model)
            if record is None or record.workers == 0:
                return False
            if record.failure is not None or record.answered is None:
                return True
            return self._clock() - record.answered >= idle_s

    def down_for(self, model: str) -> float:
        """Seconds for which ``model`` has had no worker; 0 if it has one."""
        with self._lock:
            since = self._record(model).down_since
            return 0.0 if since is None else self._clock() - since

    def weights(self, model: str) -> str | None:
        """The name of the weights of ``model``; None before its first canary."""
        return self._record(model).weights

    def failure(self, model: str) -> str | None:
        """Why the last canary failed, or None."""
        return self._record(model).failure

    def is_ready(self, model: str) -> bool:
        """Whether ``model`` answers; does not consider ``draining``."""
        with self._lock:
            record = self._known(model)
            return record is not None and self._reason(record) is None

    @property
    def ready(self) -> bool:
        """Whether every model answers and the server is not about to end."""
        return not self.draining and all(map(self.is_ready, self.models))

    def find(self, service: str) -> bool | None:
        """Whether a model answers, or the server under the empty name; None if there is none."""
        if service and service not in self._defaults:
            return None
        return bool(self.report_model(service)["ready"]) if service else self.ready

    def report_model(self, model: str) -> dict[str, Any]:
        """The state of ``model``, for JSON."""
        with self._lock:
            return self._report(self._record(model))

    def report(self) -> dict[str, Any]:
        """The state of the server and of each model, for JSON."""
        if self.draining:
            return {"ready": False, "reason": "draining"}
        models = {model: self.report_model(model) for model in self.models}
        return {"ready": all(state["ready"] for state in models.values()), "models": models}

    def _known(self, model: str) -> _Record | None:
        return self._records.get(self._defaults.get(model, model))

    def _record(self, model: str) -> _Record:
        return self._records[self._defaults.get(model, model)]

    def _report(self, record: _Record) -> dict[str, Any]:
        ago = None if record.answered is None else round(self._clock() - record.answered, 1)
        reason = "draining" if self.draining else self._reason(record)
        return {
            "ready": reason is None,
            "workers": record.workers,
            "wanted": record.wanted,
            "answered_s_ago": ago,
            "reason": reason,
        }

    def _set_workers(self, record: _Record, ready: int) -> None:
        record.workers = ready
        if ready:
            record.down_since = None
        elif record.down_since is None:
            record.down_since = self._clock()

    def _reason(self, record: _Record) -> str | None:
        """Why a model is not ready, or None."""
        if record.failure is not None:
            return record.failure
        if record.workers < record.wanted:
            return f"{record.workers} of {record.wanted} workers are ready"
        if record.answered is None:
            return "no request was answered yet"
        idle = self._clock() - max(record.answered, record.worked or 0.0)
        return f"no answer for {idle:.0f} s" if idle > FRESH_S else None
