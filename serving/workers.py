"""Tracks the workers of every model: the log shows a change, the management API the details."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import httpx

from serving.actions import say
from serving.health import Health
from serving.logs import Activity
from serving.management import Management, Worker
from serving.plan import ModelPlan, Plan

# A frontend that hangs must not delay the handling of a signal.
TIMEOUT_S = 2.0
# The API is also asked without a change, to notice that it no longer answers.
ASK_EVERY_S = 5.0
# TorchServe is deaf if its API has not answered for this time, or for START_S after its start.
DEAF_S = 30.0
START_S = 120.0


class Lines(Protocol):
    """A log that grows."""

    def advance(self) -> str: ...


class Workers:
    """Reports the ready workers to ``health``, and prints which are lost and which serve again.

    ``by_model`` has the workers that the API reported last. ``lost`` is called with a model and the
    number of its workers that have ended unexpectedly.
    """

    def __init__(
        self,
        plan: Plan,
        management: Management,
        health: Health,
        logs: str,
        lost: Callable[[str, int], None],
    ) -> None:
        self._lost = lost
        self._models = {planned.model: planned for planned in plan.models}
        self._management = management
        self._health = health
        self._logs = logs
        self.reset()

    def reset(self) -> None:
        """Forget all workers, because TorchServe is started again."""
        self.activity = Activity()
        self.by_model: Mapping[str, list[Worker]] = {}
        self._begun = time.monotonic()
        self._heard: float | None = None
        self._asked = 0.0
        self._changed = set(self._models)
        self._scaled: set[str] = set()
        self._ready: dict[str, set[int]] = {}

    @property
    def is_deaf(self) -> bool:
        """Whether TorchServe's API no longer answers, or has never answered after the start."""
        if self._heard is None:
            return time.monotonic() - self._begun > START_S
        return time.monotonic() - self._heard > DEAF_S

    def poll(self, log: Lines, *, announce: bool) -> None:
        """Read the new lines of ``log``, and ask the API about the models that changed.

        ``announce`` is whether to print changes; they are normal while the server starts or ends.
        """
        now = time.monotonic()
        # Ask the API one poll after the log, when it knows the change too.
        models, self._changed = self._changed, self.activity.update(log.advance(), now)
        models &= self._models.keys()
        try:
            if now - self._asked >= ASK_EVERY_S:
                self._asked = now
                self._management.models(timeout=TIMEOUT_S)
                self._heard = now
            for model in models:
                workers = self._management.workers(model, timeout=TIMEOUT_S)
                self._heard = now
                self._scale(self._models[model], workers)
                self._note(model, workers, announce)
        except httpx.HTTPError:
            self._changed |= models

    def _scale(self, planned: ModelPlan, workers: list[Worker]) -> None:
        """Ask for the planned number of workers if TorchServe has started that of the YAML."""
        if planned.model not in self._scaled:
            if planned.workers != len(workers):
                self._management.scale(planned.model, planned.workers)
            self._scaled.add(planned.model)

    def _note(self, model: str, workers: list[Worker], announce: bool) -> None:
        before = self._ready.get(model, set())
        now = {worker.pid for worker in workers if worker.status == "READY"}
        self._ready[model] = now
        self.by_model = {**self.by_model, model: workers}
        self._health.set_workers(model, len(now))
        if announce and before - now:
            self._lost(model, len(before - now))
            say(f"{model}: a worker was lost, TorchServe starts another; see {self._logs}")
        if announce and now - before:
            say(f"{model}: a worker serves again")
