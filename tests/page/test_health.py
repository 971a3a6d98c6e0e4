"""Whether the networks answer, as `vision status` and the page ask."""

from __future__ import annotations

import asyncio

import pytest

from tests.running import Running, free_port
from vision_client import AsyncClient, Client
from vision_client.health import ModelHealth, check, check_async


async def ask(url: str) -> list[ModelHealth]:
    async with AsyncClient(url) as client:
        return await check_async(client)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_both_networks_answer(server: Running, kind: str) -> None:
    url = server.config.inference
    with Client(url) as client:
        found = check(client) if kind == "sync" else asyncio.run(ask(url))
    assert [health.model for health in found] == ["resnet101", "cyclegan"]
    for health in found:
        assert health.answers
        assert health.weights == "untrained"
        assert health.seconds is not None
        assert health.seconds > 0
        assert health.error is None


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_nobody_there(kind: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client:
        found = check(client) if kind == "sync" else asyncio.run(ask(url))
    error = f"no connection to {url}: Connection refused"
    assert found == [
        ModelHealth("resnet101", False, error=error),
        ModelHealth("cyclegan", False, error=error),
    ]
