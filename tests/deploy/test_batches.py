"""Requests that wait while a batch is computed are answered together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from deploy.ray.batches import Batches
from deploy.ray.messages import Call, Reply


class Network:
    """Answers each call with its id, once ``go`` is set; ``batches`` are the ids that it got."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()

    def __call__(self, calls: Sequence[Call]) -> list[Reply]:
        self.batches.append([call.id for call in calls])
        assert self.go.wait(30)
        if any(call.id == "bad" for call in calls):
            raise ZeroDivisionError
        return [Reply(200, "text/plain", call.id.encode()) for call in calls]


async def ask(batches: Batches, *ids: str) -> list[asyncio.Task[Reply]]:
    tasks = [asyncio.create_task(batches.answer(Call(id=id))) for id in ids]
    await asyncio.sleep(0)
    return tasks


async def begun(network: Network, number: int) -> None:
    """Once ``network`` has got this many batches."""
    async with asyncio.timeout(30):
        while len(network.batches) < number:
            await asyncio.sleep(0.001)


def test_those_that_wait_form_the_next_batch() -> None:
    async def scenario() -> None:
        network = Network()
        batches = Batches(network, 3, 0.001)
        first = await ask(batches, "0")
        await begun(network, 1)
        rest = await ask(batches, *"12345")
        network.go.set()
        replies = await asyncio.gather(*first, *rest)
        assert [reply.body for reply in replies] == [id.encode() for id in "012345"]
        assert network.batches == [["0"], ["1", "2", "3"], ["4", "5"]]

    asyncio.run(scenario())


def test_calls_that_come_together_are_one_batch() -> None:
    async def scenario() -> None:
        network = Network()
        network.go.set()
        await asyncio.gather(*await ask(Batches(network, 8, 0.05), *"012"))
        assert network.batches == [["0", "1", "2"]]

    asyncio.run(scenario())


def test_a_client_that_has_left_costs_nothing() -> None:
    async def scenario() -> None:
        network = Network()
        batches = Batches(network, 1, 0)
        first = await ask(batches, "0")
        await begun(network, 1)
        left, stays = await ask(batches, "left", "stays")
        left.cancel()
        await asyncio.sleep(0)
        network.go.set()
        await asyncio.gather(*first, stays)
        assert network.batches == [["0"], ["stays"]]

    asyncio.run(scenario())


def test_an_exception_is_that_of_its_batch() -> None:
    async def scenario() -> None:
        network = Network()
        network.go.set()
        batches = Batches(network, 1, 0)
        [bad] = await ask(batches, "bad")
        [good] = await ask(batches, "good")
        with pytest.raises(ZeroDivisionError):
            await bad
        assert (await good).body == b"good"

    asyncio.run(scenario())
