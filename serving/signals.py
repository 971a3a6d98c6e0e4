"""The signals that ask a server to stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from serving.children import STOP_SIGNALS


class Stopped(Exception):
    """A signal asked to stop."""


@dataclass
class StopRequest:
    """Records stop signals; ``by`` is the first one.

    The handler sets fields and calls ``terminate``. It raises nothing, because an exception in it
    could surface inside any lock or finalizer. Code that waits for TorchServe then returns at once,
    calls ``check`` and raises Stopped. If ``may_drain``, the first signal lets the server finish
    the requests that it has accepted; the second ends it immediately.
    """

    by: int | None = None
    immediate: bool = False
    may_drain: bool = False
    terminate: Callable[[], object] = lambda: None

    @property
    def asked(self) -> bool:
        return self.by is not None

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        self.immediate = self.asked or not self.may_drain
        self.by = self.by or number
        if self.immediate:
            self.terminate()

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.asked:
            raise Stopped


@contextlib.contextmanager
def handled(stop: StopRequest) -> Iterator[None]:
    """``stop`` receives the stop signals until the end of the block."""
    numbers = list(STOP_SIGNALS)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)  # nohup: keep ignoring it
    previous = {number: signal.signal(number, stop.receive) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
