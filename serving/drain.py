"""Ends a server without losing requests: readiness fails, listeners close, requests finish."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from serving.signals import StopRequest

POLL_S = 0.1


class Accepting(Protocol):
    """A server whose readiness already fails."""

    def stop_accepting(self) -> None: ...
    def is_idle(self) -> bool: ...


def drain(
    stop: StopRequest,
    poll: Callable[[], None],
    server: Accepting,
    *,
    open_s: float,
    timeout_s: float,
) -> None:
    """Accept requests for ``open_s`` more seconds, then wait at most ``timeout_s`` for answers.

    ``poll`` is called meanwhile to keep the server running. A second signal ends the wait.
    """
    closing = time.monotonic() + open_s
    while time.monotonic() < closing and not stop.immediate:
        poll()
        time.sleep(POLL_S)
    server.stop_accepting()
    ending = time.monotonic() + timeout_s
    reported = False
    idle_polls = 0
    # A dequeued batch is briefly neither in the queue nor in a worker: require two idle polls.
    while idle_polls < 2 and not stop.immediate:
        if time.monotonic() > ending:
            print(f"still busy after {timeout_s:.0f} s: dropping what is left", flush=True)
            return
        poll()
        idle_polls = idle_polls + 1 if server.is_idle() else 0
        if not idle_polls and not reported:
            reported = True
            print("finishing accepted requests; a second signal drops them", flush=True)
        time.sleep(POLL_S)
