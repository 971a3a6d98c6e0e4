"""The queue: decides which request goes to TorchServe next.

TorchServe's own queue is first come, first served. It does not tell clients apart, and it keeps the
requests of clients that have left. So TorchServe gets only as many requests as its workers need,
and the others wait here. Envoy holds their bytes; this module holds a future for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from serving.refusals import Refused, deadline_exceeded, no_worker, queue_full

# A gentle client (see Capacity) counts as active for this many seconds after its last request.
RECENT_S = 10.0
# The queue remembers at most this many gentle clients.
_REMEMBERED = 1000
# Requests wait while a model has no worker. When it has had none for longer than this, in seconds,
# waiting and new requests are refused.
DOWN_S = 15.0
# The weight of the latest answer in the mean time of a request, after the first ten answers.
_SMOOTHING = 0.1


@dataclass(frozen=True)
class Capacity:
    """The limits of a model, in numbers of requests.

    At most ``slots`` are with TorchServe at once, at most ``waiting`` wait in the queue, and at
    most ``per_client`` of these belong to one client. A client is gentle if it sends at most
    ``gentle`` requests at once. While one is active, every other client has at most ``gentle``
    requests with TorchServe, so that the gentle client never waits for a whole batch of another.
    """

    slots: int
    waiting: int
    per_client: int
    gentle: int


@dataclass
class _Client:
    name: str
    in_work: int = 0
    turn: int = 0  # the number of its last admission
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
        # Mean seconds of a request with TorchServe: a guess before the first answer, then the mean
        # of all answers, later a moving average.
        self._mean = 0.1
        self._answers = 0

    @property
    def present(self) -> int:
        """Requests that wait or are with TorchServe."""
        return self._in_work + self._waiting

    @property
    def waiting(self) -> int:
        return self._waiting

    @property
    def in_work(self) -> int:
        """Requests that are with TorchServe."""
        return self._in_work

    async def enter(self, name: str, deadline: float | None = None) -> None:
        """Wait until a request of the client ``name`` may go to TorchServe.

        The caller must then call ``leave`` or ``abandon`` (see ``place``). ``deadline`` is on the
        clock ``time.monotonic``. Raises Refused if a limit is reached, the deadline passes, or the
        model has no worker for too long.
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
        """Free the slot of a request of ``name``, answered after ``seconds`` (None: unknown)."""
        if seconds is not None:
            self._answers += 1
            self._mean += max(1 / self._answers, _SMOOTHING) * (seconds - self._mean)
        client = self._clients[name]
        client.in_work -= 1
        self._in_work -= 1
        self._forget(client)
        self._admit()

    def abandon(self, name: str) -> None:
        """The client ``name`` has left while TorchServe had its request.

        TorchServe cannot cancel it, so it keeps its slot for the mean time of a request.
        """
        asyncio.get_running_loop().call_later(self._mean, self.leave, name, None)

    def _check(self, client: _Client, deadline: float | None) -> None:
        self._check_workers()
        if self._waiting >= self.capacity.waiting:
            raise queue_full(self._retry_after())
        if len(client.waiting) >= self.capacity.per_client:
            raise Refused(
                429,
                "TooManyRequests",
                f"{len(client.waiting)} requests of this client wait already: try again",
                self._retry_after(),
            )
        if deadline is not None and deadline <= time.monotonic():
            raise deadline_exceeded()

    def _check_workers(self) -> None:
        if self._down_for() > DOWN_S:
            raise no_worker(self.model)

    async def _wait(
        self, client: _Client, turn: asyncio.Future[None], deadline: float | None
    ) -> None:
        try:
            while not turn.done():
                left = 1.0 if deadline is None else min(deadline - time.monotonic(), 1.0)
                if left <= 0:
                    raise deadline_exceeded()
                await asyncio.wait([turn], timeout=left)
                self._admit()  # a worker may be back
                if not turn.done():
                    self._check_workers()
        except BaseException:
            if turn.done():  # it was let in at the same moment
                self.leave(client.name, None)
            else:
                client.waiting.remove(turn)
                self._waiting -= 1
            raise

    def _admit(self) -> None:
        """Give free slots to clients in turn; none while the model has no worker."""
        while self._in_work < self.capacity.slots and not self._down_for():
            candidates = [
                client
                for client in self._clients.values()
                if client.waiting and client.in_work < self._most_of(client)
            ]
            if not candidates:
                return
            client = min(candidates, key=lambda client: (client.in_work, client.turn))
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
        """The time in which TorchServe answers all present requests, in seconds from 1 to 60."""
        return round(min(max(self._mean * self.present / self.capacity.slots, 1), 60))


@contextlib.contextmanager
def place(queue: ModelQueue, name: str) -> Iterator[Callable[[], None]]:
    """Hold the slot that a request of the client ``name`` got from ``queue.enter``.

    Call the result when TorchServe has answered; without that call the request counts as abandoned.
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
