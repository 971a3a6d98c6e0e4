"""After a large batch the C library gives its free memory back, after a small one it keeps it."""

from __future__ import annotations

import threading

import pytest

from handlers import memory


@pytest.mark.parametrize(("size", "expected"), [(1_000_000, 0), (5_000_000, 1)])
def test_only_large_batches_are_followed_by_it(
    monkeypatch: pytest.MonkeyPatch, size: int, expected: int
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(memory, "_trim", calls.append)
    monkeypatch.setattr(memory, "DELAY_S", 0)
    memory.give_back_after([{"body": bytes(size)}, {"data": bytes(size), "top_k": b"3"}])
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    assert len(calls) == expected
