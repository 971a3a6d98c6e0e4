"""The supervisor's repairs. Each one is printed as a line and counted in a metric."""

from __future__ import annotations

import time
from enum import StrEnum

from prometheus_client import Counter


class Action(StrEnum):
    KILL_WORKER = "kill_worker"
    SCALE_AGAIN = "scale_again"
    RESTART_TORCHSERVE = "restart_torchserve"
    RESTART_GATEWAY = "restart_gateway"

    @property
    def is_of_a_model(self) -> bool:
        """Whether it concerns one model, not all."""
        return self in (Action.KILL_WORKER, Action.SCALE_AGAIN)


class Actions:
    """Counts actions in ``counter``, by action and model."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def record(self, action: Action, why: str, key: str = "") -> None:
        """Count ``action`` and print its reason ``why``.

        ``key`` is the MODEL/VERSION that it concerns, or empty if it concerns all.
        """
        self._counter.labels(action.value, key.partition("/")[0]).inc()
        say(f"{key}: {why}" if key else why)


def say(text: str) -> None:
    """Print a line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
