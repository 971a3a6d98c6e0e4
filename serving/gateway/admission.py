"""The queue: decides which request goes to TorchServe next.

TorchServe's own queue is first come, first served; it keeps requests of clients that have left, and
knows no clients. So only as many requests as its workers need are with TorchServe, and the others
wait here. Envoy holds their bytes; this module holds a future for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

# A client that asked within this time keeps its place among the active ones, in seconds.
RECENT_S = 10.0
# The most recent clients that are remembered.
_REMEMBERED = 1000
# Requests for a model without a worker wait for this long, in seconds, and are then refused. A
# killed worker is replaced sooner.
DOWN_S = 15.0
# The least weight of an answer in the mean.
_SMOOTHING = 0.1


@dataclass(frozen=True)
class Capacity:
    """How many requests of a model may be where.

    ``slots`` are with TorchServe at once, ``waiting`` in the queue, ``per_client`` of one client in
    the queue. While some client sends at most ``gentle`` requests at once, every other has at most
    ``gentle`` with TorchServe: the gentle one then never waits for a whole batch of another.
    """

    slots: int
    waiting: int
    per_client: int
    gentle: int


class Refused(Exception):
    """Why a request is not let in; ``retry_after`` is in seconds, 0 for never."""

    def __init__(self, code: int, type: str, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.type = type
        self.message = message
        self.retry_after = retry_after


@dataclass
class _Client:
    name: str
    in_work: int = 0
    turn: int = 0  # when it was last let in
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    @property
    def present(self) -> int:
        return self.in_work + len(self.waiting)


class ModelQueue:
    """The requests for one model. Use it from one event loop.

    ``down_for`` gives the seconds for which the model has had no worker, 0.0 if it has one.
    """

    def __init__(
        self, model: str, capacity: Capacity, down_for: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.model = model
        self.capacity = capacity
        self._down_for = down_for
        self._clients: dict[str, _Client] = {}
        self._gentle: OrderedDict[str, float] = OrderedDict()
        self._in_work = 0
        self._waiting = 0
        self._turns = 0
        # Seconds with TorchServe: a guess, then the mean of the answers, of late the latest ones.
        self._mean = 0.1
        self._answers = 0

    @property
    def present(self) -> int:
        """Requests that wait or are with TorchServe."""
        return self._in_work + self._waiting

    @property
    def waiting(self) -> int:
        return self._waiting

    async def enter(self, name: str, deadline: float | None = None) -> None:
        """Wait until a request of the client ``name`` may go to TorchServe.

        ``leave`` or ``abandon`` must follow (see ``place``). ``deadline`` is on the clock
        ``time.monotonic``. Raises Refused, also when it passes.
        """
        client = self._clients.setdefault(name, _Client(name))
        try:
            self._check(client, deadline)
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            client.waiting.append(turn)
            self._waiting += 1
            self._remember(client)
            self._admit()
            await self._wait(client, turn, deadline)
        finally:
            self._forget(client)

    def leave(self, name: str, seconds: float | None) -> None:
        """A request of ``name`` was answered after ``seconds`` (None: that is not known)."""
        if seconds is not None:
            self._answers += 1
            self._mean += max(1 / self._answers, _SMOOTHING) * (seconds - self._mean)
        client = self._clients[name]
        client.in_work -= 1
        self._in_work -= 1
        self._forget(client)
        self._admit()

    def abandon(self, name: str) -> None:
        """The client of a request in work has left.

        TorchServe works on it all the same, so it keeps its slot for the time that one takes.
        """
        asyncio.get_running_loop().call_later(self._mean, self.leave, name, None)

    def _check(self, client: _Client, deadline: float | None) -> None:
        if self._down_for() > DOWN_S:
            raise Refused(503, "Unavailable", f"{self.model} has no worker: try again", 5)
        if self._waiting >= self.capacity.waiting:
            raise Refused(503, "Overloaded", "the queue is full: try again", self._retry_after())
        if len(client.waiting) >= self.capacity.per_client:
            raise Refused(
                429,
                "TooManyRequests",
                f"{len(client.waiting)} requests of this client wait already: try again",
                self._retry_after(),
            )
        if deadline is not None and deadline <= time.monotonic():
            raise _deadline_exceeded()

    async def _wait(
        self, client: _Client, turn: asyncio.Future[None], deadline: float | None
    ) -> None:
        try:
            while not turn.done():
                left = 1.0 if deadline is None else min(deadline - time.monotonic(), 1.0)
                if left <= 0:
                    raise _deadline_exceeded()
                await asyncio.wait([turn], timeout=left)
                self._admit()  # a worker may be back
                if not turn.done() and self._down_for() > DOWN_S:
                    raise Refused(503, "Unavailable", f"{self.model} has no worker: try again", 5)
        except BaseException:
            if turn.done():  # let in and gone at the same moment
                self.leave(client.name, None)
            else:
                client.waiting.remove(turn)
                self._waiting -= 1
            raise

    def _admit(self) -> None:
        """Let in whoever may go; nobody while there is no worker."""
        while self._in_work < self.capacity.slots and not self._down_for():
            able = [
                client
                for client in self._clients.values()
                if client.waiting and client.in_work < self._most_of(client)
            ]
            if not able:
                return
            client = min(able, key=lambda client: (client.in_work, client.turn))
            client.waiting.popleft().set_result(None)
            self._waiting -= 1
            client.in_work += 1
            self._in_work += 1
            self._turns += 1
            client.turn = self._turns

    def _most_of(self, client: _Client) -> int:
        """How many requests of ``client`` may be with TorchServe now."""
        oldest = time.monotonic() - RECENT_S
        for name, seen in reversed(self._gentle.items()):
            if seen < oldest:
                break
            if name != client.name:
                return self.capacity.gentle
        return self.capacity.slots

    def _remember(self, client: _Client) -> None:
        self._gentle.pop(client.name, None)
        if client.present <= self.capacity.gentle:
            self._gentle[client.name] = time.monotonic()
            if len(self._gentle) > _REMEMBERED:
                self._gentle.popitem(last=False)

    def _forget(self, client: _Client) -> None:
        if not client.present:
            self._clients.pop(client.name, None)

    def _retry_after(self) -> int:
        """Whole seconds until the queue has moved on, from 1 to 60."""
        return round(min(max(self._mean * self.present / self.capacity.slots, 1), 60))


def _deadline_exceeded() -> Refused:
    return Refused(504, "DeadlineExceeded", "the time that the client allows has passed")


@contextlib.contextmanager
def place(queue: ModelQueue, name: str) -> Iterator[Callable[[], None]]:
    """A slot of ``queue`` that was entered; call the result when TorchServe has answered.

    Without that call, the request is taken as abandoned.
    """
    started = time.monotonic()
    answered = False

    def answer() -> None:
        nonlocal answered
        if not answered:
            answered = True
            queue.leave(name, time.monotonic() - started)

    try:
        yield answer
    finally:
        if not answered:
            queue.abandon(name)
