"""The order of the queue, its bounds, and what happens to requests that end early."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serving.gateway import admission
from serving.gateway.admission import Capacity, ModelQueue, place
from serving.gateway.configuration import GatewayLimits
from serving.gateway.service import AdmissionService
from serving.refusals import Refused, check_query
from serving.versions import Served
from tests.serving.test_versions import NEW, OLD

CAPACITY = Capacity(slots=2, waiting=6, per_client=4, gentle=1)


class Asked:
    """Requests to one queue, each a task; ``order`` holds clients as they were let in."""

    def __init__(self, queue: ModelQueue) -> None:
        self.queue = queue
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._done: list[asyncio.Event] = []

    async def ask(self, *clients: str, deadline: float | None = None) -> None:
        """Send a request for each of ``clients`` and let the queue act."""
        for client in clients:
            self.tasks.append(asyncio.create_task(self._request(client, deadline)))
        await settle()

    async def _request(self, client: str, deadline: float | None) -> None:
        await self.queue.enter(client, deadline)
        with place(self.queue, client) as answer:
            self.order.append(client)
            done = asyncio.Event()
            self._done.append(done)
            await done.wait()
            answer()

    async def answer_next(self) -> None:
        """TorchServe answers the request that it has had longest."""
        self._done.pop(0).set()
        await settle()


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(bounded())


def refusal(task: asyncio.Task[None]) -> Refused:
    error = task.exception()
    assert isinstance(error, Refused), error
    return error


def test_clients_take_turns() -> None:
    async def test() -> None:
        asked = Asked(ModelQueue("m", Capacity(slots=1, waiting=9, per_client=9, gentle=1)))
        await asked.ask("a", "a", "a", "a", "b", "c", "b")
        for _ in range(6):
            await asked.answer_next()
        assert asked.order == ["a", "b", "c", "a", "b", "a", "a"]

    run(test)


def test_a_client_alone_has_every_slot() -> None:
    async def test() -> None:
        asked = Asked(ModelQueue("m", CAPACITY))
        await asked.ask("greedy", "greedy", "greedy")
        assert asked.order == ["greedy"] * 2

    run(test)


def test_beside_a_gentle_client_another_has_few_slots() -> None:
    async def test() -> None:
        asked = Asked(ModelQueue("m", CAPACITY))
        await asked.ask("gentle")
        await asked.ask(*["greedy"] * 4)
        assert asked.order == ["gentle", "greedy"]
        # The gentle one pauses between two requests: the other still has one slot.
        await asked.answer_next()
        assert asked.order == ["gentle", "greedy"]
        await asked.ask("gentle")
        assert asked.order == ["gentle", "greedy", "gentle"]

    run(test)


def test_two_greedy_clients_share_all_slots() -> None:
    async def test() -> None:
        capacity = Capacity(slots=4, waiting=20, per_client=9, gentle=1)
        asked = Asked(ModelQueue("m", capacity))
        await asked.ask(*["a", "b"] * 5)
        await asked.answer_next()
        await asked.answer_next()
        await asked.answer_next()
        assert asked.order[-4:].count("a") == 2

    run(test)


def test_a_gentle_client_that_has_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "RECENT_S", 0.0)

    async def test() -> None:
        asked = Asked(ModelQueue("m", CAPACITY))
        await asked.ask("gentle")
        await asked.answer_next()
        await asked.ask(*["greedy"] * 3)
        assert asked.order == ["gentle", "greedy", "greedy"]

    run(test)


def test_the_queue_is_bounded() -> None:
    async def test() -> None:
        asked = Asked(ModelQueue("m", CAPACITY))
        await asked.ask(*["a"] * 6)  # two in work, four waiting
        await asked.ask("a")
        error = refusal(asked.tasks[-1])
        assert (error.code, error.type) == (429, "TooManyRequests")
        assert error.retry_after >= 1
        await asked.ask("b", "c")
        await asked.ask("d")
        error = refusal(asked.tasks[-1])
        assert (error.code, error.type) == (503, "Overloaded")
        assert error.retry_after >= 1

    run(test)


def test_a_deadline_includes_the_queue() -> None:
    async def test() -> None:
        asked = Asked(ModelQueue("m", CAPACITY))
        await asked.ask("a", "a")
        await asked.ask("b", deadline=time.monotonic() + 0.05)
        await asyncio.wait([asked.tasks[-1]], timeout=5)
        assert refusal(asked.tasks[-1]).code == 504
        assert asked.queue.waiting == 0
        await asked.ask("b", deadline=time.monotonic() - 1)
        assert refusal(asked.tasks[-1]).code == 504

    run(test)


def test_a_client_that_leaves_the_queue_costs_nothing() -> None:
    async def test() -> None:
        asked = Asked(ModelQueue("m", CAPACITY))
        await asked.ask("a", "a", "b", "c")
        asked.tasks[2].cancel()
        await settle()
        await asked.answer_next()
        assert asked.order == ["a", "a", "c"]
        assert asked.queue.present == 2

    run(test)


def test_an_abandoned_request_keeps_its_slot_while_it_is_worked_on() -> None:
    async def test() -> None:
        asked = Asked(ModelQueue("m", Capacity(slots=1, waiting=9, per_client=9, gentle=1)))
        await asked.ask("a", "b")
        asked.tasks[0].cancel()
        await settle()
        assert asked.order == ["a"]
        async with asyncio.timeout(5):
            while len(asked.order) < 2:
                await asyncio.sleep(0.01)
        assert asked.order == ["a", "b"]

    run(test)


def test_a_request_cancelled_as_it_is_let_in_gives_its_slot_back() -> None:
    async def test() -> None:
        asked = Asked(ModelQueue("m", Capacity(slots=1, waiting=9, per_client=9, gentle=1)))
        await asked.ask("a", "b", "c")
        asked.queue.leave("a", 0.1)  # b is let in, and has not run yet
        asked.tasks[1].cancel()
        await settle()
        assert asked.order == ["a", "c"]

    run(test)


def test_a_model_without_workers_refuses_after_a_while() -> None:
    down = 0.0

    async def test() -> None:
        nonlocal down
        asked = Asked(ModelQueue("m", CAPACITY, lambda: down))
        await asked.ask("a", "a")
        down = admission.DOWN_S - 1
        await asked.ask("a")
        down = admission.DOWN_S + 1
        await asked.ask("b")
        assert refusal(asked.tasks[-1]).code == 503
        await asyncio.wait([asked.tasks[2]], timeout=5)  # it waited already
        assert refusal(asked.tasks[2]).code == 503

    run(test)


def test_requests_wait_for_a_worker_that_comes_back() -> None:
    down = 0.5

    async def test() -> None:
        nonlocal down
        asked = Asked(ModelQueue("m", CAPACITY, lambda: down))
        await asked.ask("a")
        assert asked.order == []
        down = 0.0
        async with asyncio.timeout(5):
            while not asked.order:
                await asyncio.sleep(0.01)

    run(test)


def test_clients_without_requests_are_not_kept() -> None:
    async def test() -> None:
        asked = Asked(ModelQueue("m", CAPACITY))
        for i in range(20):
            await asked.ask(f"client{i}")
            await asked.answer_next()
        assert asked.queue._clients == {}

    run(test)


@pytest.mark.parametrize(
    ("query", "remedy"),
    [
        ("top_k=1", "send top_k as the header x-top-k"),
        ("Top-K=3&size=64", "send top_k as the header x-top-k"),
        ("format=png", "send format as the header x-format"),
        ("size=64", "options are headers"),
        ("customized=true", "options are headers"),
        ("%22%7D=1", "options are headers"),
    ],
)
def test_a_query_string_is_refused(query: str, remedy: str) -> None:
    check_query("", ("top_k", "format"))
    with pytest.raises(Refused, match=f"a prediction has no query string: {remedy}$"):
        check_query(query, ("top_k", "format"))


def test_a_version_that_a_waiting_request_names_is_kept_for_it() -> None:
    """It is still loaded, although no new request may name it."""
    served = Served([OLD], lambda key: True)
    served.change("a", candidate=NEW)
    queue = ModelQueue("a", Capacity(1, 10, 10, 1))
    limits = GatewayLimits(*[2**20] * 7)
    service = AdmissionService(
        {"a": queue}, served, lambda _: None, 60, limits, lambda: None, lambda *_: None
    )

    async def run() -> None:
        await queue.enter("other")
        until = time.monotonic() + 30
        turn = service._turn(queue, "client", "02", until, contextlib.nullcontext())
        waiting = asyncio.create_task(turn.__aenter__())
        await asyncio.sleep(0)
        served.change("a", candidate=None)
        queue.leave("other", 0.1)
        answer, chosen = await asyncio.wait_for(waiting, 10)
        assert (chosen, served.present("a/02")) == (NEW, 1)
        answer()
        await turn.__aexit__(None, None, None)
        assert served.present("a/02") == 0

    asyncio.run(run())
