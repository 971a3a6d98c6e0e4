"""Clients that send a picture all the time, and what they see."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from vision_client import Client, ConnectionFailed, ServerError, VisionError
from vision_client.tasks import DECODERS

CLIENTS = 3  # of each model
TIMEOUT_S = 60.0
# What the contract lets a client send again. These are patient: a model whose only replica is lost
# is away until another one has started.
RETRIED = {429, 503, 507}
RETRIES = 8


@dataclass
class Seen:
    """What the clients of a model saw.

    ``answers`` are the times of answers, on the clock ``time.monotonic``. ``retried`` and
    ``failed`` count errors by their type: those after which a client sent its request again, and
    those at which it gave up. ``longest`` is the longest wait for an answer, retries included, in
    seconds.
    """

    answers: list[float] = field(default_factory=list)
    retried: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0

    def rate(self, since: float, until: float) -> float:
        """Answers per second between two times."""
        return sum(since <= each < until for each in self.answers) / (until - since)


@contextmanager
def clients(server: str, tasks: Mapping[str, str], picture: bytes) -> Iterator[dict[str, Seen]]:
    """``CLIENTS`` clients of each model, until the end of the block; then each gets its answer.

    ``tasks`` are those of the models by name.
    """
    seen = {model: Seen() for model in tasks}
    ended = threading.Event()
    with Client(server, timeout=TIMEOUT_S, retries=0) as client:
        threads = [
            threading.Thread(target=_send, args=(client, model, tasks[model], picture, each, ended))
            for model, each in seen.items()
            for _ in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield seen
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def _send(
    client: Client, model: str, task: str, picture: bytes, seen: Seen, ended: threading.Event
) -> None:
    while not ended.is_set():
        begun = time.monotonic()
        for attempt in range(RETRIES + 1):
            try:
                client.ask(DECODERS[task], picture, model)
            except VisionError as error:
                if attempt == RETRIES or not _may_be_sent_again(error):
                    seen.failed[_kind(error)] += 1
                    break
                seen.retried[_kind(error)] += 1
                ended.wait(max(1.0, getattr(error, "retry_after", 0.0)))
            else:
                seen.answers.append(time.monotonic())
                seen.longest = max(seen.longest, time.monotonic() - begun)
                break


def _may_be_sent_again(error: VisionError) -> bool:
    if isinstance(error, ServerError):
        return error.code in RETRIED
    return isinstance(error, ConnectionFailed)


def _kind(error: VisionError) -> str:
    return f"{error.code} {error.type}" if isinstance(error, ServerError) else type(error).__name__
