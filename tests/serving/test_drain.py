"""The order of an end: notice, closed listeners, answers, and the signals that shorten it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable

import pytest

from serving.drain import drain
from serving.signals import StopRequest


class Server:
    """Idle or not as the test says; notes what is done to it."""

    def __init__(self, idle: Iterable[bool]) -> None:
        self.idle = iter(idle)
        self.done: list[str] = []

    def poll(self) -> None:
        self.done.append("poll")

    def stop_accepting(self) -> None:
        self.done.append("closed")

    def is_idle(self) -> bool:
        return next(self.idle)


@pytest.fixture
def stop() -> StopRequest:
    """One signal has come."""
    stop = StopRequest(may_drain=True)
    stop.receive(signal.SIGTERM, None)
    return stop


def test_it_accepts_for_a_while_then_waits_for_answers(
    stop: StopRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    # Idle for a moment, then not: a batch was on its way from the queue to a worker.
    server = Server([True, False, True, True])
    begun = time.monotonic()
    drain(stop, server.poll, server, open_s=0.3, timeout_s=60)
    assert time.monotonic() - begun > 0.3
    assert server.done.index("closed") >= 2, "it is supervised while it accepts"
    assert server.done.count("closed") == 1
    assert next(server.idle, None) is None
    assert "finishing accepted requests" in capsys.readouterr().out


def test_it_does_not_wait_forever(stop: StopRequest, capsys: pytest.CaptureFixture[str]) -> None:
    drain(stop, lambda: None, Server(iter(lambda: False, None)), open_s=0, timeout_s=0.3)
    assert "dropping what is left" in capsys.readouterr().out


@pytest.mark.parametrize(("open_s", "idle"), [(3600.0, True), (0.0, False)])
def test_a_second_signal_ends_it(stop: StopRequest, open_s: float, idle: bool) -> None:
    polls = 0

    def poll() -> None:
        nonlocal polls
        polls += 1
        if polls == 2:
            stop.receive(signal.SIGTERM, None)

    server = Server(iter(lambda: idle, None))
    drain(stop, poll, server, open_s=open_s, timeout_s=3600)
    assert polls <= 3
