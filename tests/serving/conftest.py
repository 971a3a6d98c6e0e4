"""Fixtures of the tests against a running server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.running import Running


@pytest.fixture
def same_workers(server: Running) -> Iterator[None]:
    """Fails the test if it made a worker restart."""

    def pids() -> list[int]:
        models = server.management.models()
        return [worker.pid for model in models for worker in server.management.workers(model)]

    before = pids()
    yield
    assert pids() == before, "a worker was restarted"
