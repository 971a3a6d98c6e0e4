"""Tracks the workers of every model: the log shows a change, the management API the details."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import httpx

from serving.actions import say
from serving.health import Health
from serving.held import file_name
from serving.logs import Activity
from serving.management import Management, Worker
from serving.plan import ModelPlan
from serving.versions import Served

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

    ``by_key`` has the workers of each version that the API reported last. ``lost`` is called with a
    model and the number of its workers that have ended unexpectedly.
    """

    def __init__(
        self,
        served: Served,
        management: Management,
        health: Health,
        logs: str,
        lost: Callable[[str, int], None],
    ) -> None:
        self._lost = lost
        self._served = served
        self._management = management
        self._health = health
        self._logs = logs
        # The versions that have had all of their workers.
        self._complete: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """Forget all workers, because TorchServe is started again."""
        self.activity = Activity()
        self.by_key: Mapping[str, list[Worker]] = {}
        self._begun = time.monotonic()
        self._heard: float | None = None
        self._asked = 0.0
        self._changed = set(self._served.watched)
        self._scaled: set[str] = set()
        self._ready: dict[str, set[int]] = {}

    @property
    def is_deaf(self) -> bool:
        """Whether TorchServe's API no longer answers, or has never answered after the start."""
        if self._heard is None:
            return time.monotonic() - self._begun > START_S
        return time.monotonic() - self._heard > DEAF_S

    def poll(self, log: Lines, *, announce: bool) -> None:
        """Read the new lines of ``log``, and ask the API about the versions that changed.

        ``announce`` is whether to print changes; they are normal while the server starts or ends.
        """
        now = time.monotonic()
        # Ask the API one poll after the log, when it knows the change too.
        keys, self._changed = self._changed, self.activity.update(log.advance(), now)
        watched = self._served.watched
        keys &= watched.keys()
        self._forget(watched)
        try:
            if now - self._asked >= ASK_EVERY_S:
                self._asked = now
                self._management.models(timeout=TIMEOUT_S)
                self._heard = now
            for key in set(keys):
                self._ask(watched[key], now, announce)
                keys.discard(key)
        except httpx.HTTPError:
            self._changed |= keys

    def _ask(self, planned: ModelPlan, now: float, announce: bool) -> None:
        """Ask about one version; load it again if a restarted TorchServe does not have it."""
        try:
            workers = self._management.workers(planned.key, timeout=TIMEOUT_S)
        except httpx.HTTPStatusError as error:
            self._changed.add(planned.key)
            if (
                error.response.status_code == httpx.codes.NOT_FOUND
                and planned in self._served.accepted
            ):
                self._management.register(file_name(planned.archive), planned.workers)
            return
        self._heard = now
        self._scale(planned, workers)
        self._note(planned.key, workers, announce)

    def _forget(self, watched: Mapping[str, ModelPlan]) -> None:
        """Drop the versions that are served no longer."""
        self.activity.keep(watched)
        self._scaled &= watched.keys()
        self._complete &= watched.keys()
        self._ready = {key: pids for key, pids in self._ready.items() if key in watched}
        self.by_key = {key: listed for key, listed in self.by_key.items() if key in watched}

    def _scale(self, planned: ModelPlan, workers: list[Worker]) -> None:
        """Ask for the planned number of workers if TorchServe has started that of the YAML."""
        if planned.key not in self._scaled:
            if planned.workers != len(workers):
                self._management.scale(planned.key, planned.workers)
            self._scaled.add(planned.key)

    def _note(self, key: str, workers: list[Worker], announce: bool) -> None:
        before = self._ready.get(key, set())
        now = {worker.pid for worker in workers if worker.status == "READY"}
        self._ready[key] = now
        self.by_key = {**self.by_key, key: workers}
        self._health.set_workers(key, len(now))
        announce &= key in self._complete  # a rollout says itself when its version is loaded
        if len(now) == len(workers):
            self._complete.add(key)
        if announce and before - now:
            self._lost(key.partition("/")[0], len(before - now))
            say(f"{key}: a worker was lost, TorchServe starts another; see {self._logs}")
        if announce and now - before:
            say(f"{key}: a worker serves again")
