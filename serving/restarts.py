"""Restarts a process that has ended, with growing pauses, until it has ended too often."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from serving.actions import Action, Actions
from serving.errors import ServingError

PAUSES_S = (1, 2, 4, 8, 16)
WINDOW_S = 600


class Restartable(Protocol):
    """``start`` may be called again once ``ended`` gives an exit status."""

    def start(self) -> None: ...
    def ended(self) -> int | None: ...


class Restarts:
    """Keeps ``process`` running; ``name`` and ``log`` are for messages."""

    def __init__(
        self,
        process: Restartable,
        name: str,
        log: str,
        actions: Actions,
        action: Action,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process = process
        self._name = name
        self._log = log
        self._actions = actions
        self._action = action
        self._clock = clock
        self._failures: deque[float] = deque()
        self._due: float | None = None

    def poll(self) -> bool:
        """Start the process if it has ended and its pause is over; returns whether it runs.

        ServingError if it has ended more than ``len(PAUSES_S)`` times within WINDOW_S.
        """
        now = self._clock()
        if self._due is None:
            status = self._process.ended()
            if status is not None:
                self._plan(f"{self._name} ended with status {status}", now)
        elif now >= self._due:
            self._due = None
            try:
                self._process.start()
            except ServingError as error:
                self._plan(f"{self._name} did not start ({error})", now)
        return self._due is None

    def replace(self, kill: Callable[[], None], reason: str) -> None:
        """Call ``kill``, and treat the process as one that has ended by itself."""
        kill()
        self._plan(f"{self._name} {reason}", self._clock())

    def _plan(self, what: str, now: float) -> None:
        while self._failures and now - self._failures[0] > WINDOW_S:
            self._failures.popleft()
        if len(self._failures) == len(PAUSES_S):
            raise ServingError(
                f"{what}, after {len(PAUSES_S)} restarts within {WINDOW_S // 60} minutes: giving "
                f"up; see {self._log}"
            )
        pause = PAUSES_S[len(self._failures)]
        self._failures.append(now)
        self._due = now + pause
        self._actions.record(self._action, f"{what}: it is started again in {pause} s")
