"""The two ways to load a server, closed and open loop, over any way to send.

Times are seconds of ``time.monotonic``.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

# Sends one request and waits for its answer: "" where that was good, else what went wrong.
Ask = Callable[[], str]


@dataclass(frozen=True)
class Sample:
    """One request: when it was due, when its answer was there, and ``""`` or what was wrong."""

    due: float
    done: float
    error: str

    @property
    def seconds(self) -> float:
        return self.done - self.due


@dataclass(frozen=True)
class Run:
    """The samples that count, and the window they were due in.

    ``cpu`` is this process's CPU seconds per second of the window.
    """

    samples: list[Sample]
    begin: float
    end: float
    cpu: float


def closed(clients: Sequence[Ask], *, seconds: float, warm: float) -> Run:
    """Each client asks again as soon as it is answered, for ``warm`` and then ``seconds``.

    A sample is one cycle, from a client's answer to its next. The cycle that is under way at the
    end is finished and counts, as does at least one of each client.
    """
    begin = time.monotonic() + warm
    end = begin + seconds

    def client(ask: Ask) -> list[Sample]:
        samples: list[Sample] = []
        due = time.monotonic()
        while len(samples) < 2 or due < end:
            error = ask()
            done = time.monotonic()
            if done >= begin:
                samples.append(Sample(due, done, error))
            due = done
        return samples[1:]  # the first began before the window

    return _run(client, clients, begin, end)


def open_loop(
    clients: Sequence[Ask], *, rate: float, seconds: float, warm: float, seed: int
) -> Run:
    """Requests become due in a Poisson process of ``rate`` per second, whatever the server does.

    Each is sent by a client that is free, or by the first that becomes so; its time runs from when
    it was due, so that a server which stalls is charged for all who wait (no coordinated omission).
    """
    started = time.monotonic()
    begin = started + warm
    end = begin + seconds
    dues = _Shared(started + at for at in arrivals(rate, warm + seconds, seed))

    def client(ask: Ask) -> list[Sample]:
        samples = []
        for due in dues:
            time.sleep(max(due - time.monotonic(), 0))
            error = ask()
            if due >= begin:
                samples.append(Sample(due, time.monotonic(), error))
        return samples

    return _run(client, clients, begin, end)


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Times in [0, ``seconds``) of a Poisson process of ``rate`` per second."""
    source = random.Random(seed)  # noqa: S311 - traffic, no secret
    at = source.expovariate(rate)
    while at < seconds:
        yield at
        at += source.expovariate(rate)


class _Shared:
    """An iterator that several threads draw from."""

    def __init__(self, items: Iterable[float]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[float]:
        return self

    def __next__(self) -> float:
        with self._lock:
            return next(self._items)


def _run(
    client: Callable[[Ask], list[Sample]], clients: Sequence[Ask], begin: float, end: float
) -> Run:
    with ThreadPoolExecutor(len(clients)) as threads:
        waiting = threads.map(client, clients)
        time.sleep(max(begin - time.monotonic(), 0))
        before = time.process_time()
        time.sleep(max(end - time.monotonic(), 0))
        used = time.process_time() - before
        samples = [sample for found in waiting for sample in found]
    return Run(samples, begin, end, used / (end - begin))
