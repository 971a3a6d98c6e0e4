"""Free memory is returned to the system after large batches."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from handlers import memory

# Prints how much memory stays resident after a thread allocated and freed 40 MB in pieces.
SCRIPT = """
import sys, threading, psutil
from handlers import memory
if sys.argv[1] == "one":
    memory.use_one_heap()
def work():
    bytearray(30_000_000)  # glibc raises its thresholds to the largest freed block
    pieces = [bytearray(100_000) for _ in range(400)]
    del pieces
    done.set()
    ended.wait()
done, ended = threading.Event(), threading.Event()
before = psutil.Process().memory_info().rss
threading.Thread(target=work).start()
done.wait()
memory._trim(0)
print(psutil.Process().memory_info().rss - before)
ended.set()
"""


@pytest.mark.parametrize(("size", "expected"), [(1_000_000, 0), (5_000_000, 1)])
def test_memory_is_returned_after_large_batches_only(
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


def test_memory_is_returned_after_thousands_of_empty_fields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = threading.Event()
    monkeypatch.setattr(memory, "_trim", lambda _: called.set())
    monkeypatch.setattr(memory, "DELAY_S", 0)
    memory.give_back_after([{str(i): b"" for i in range(40_000)}])
    assert called.wait(10)


def test_threads_have_no_heaps_of_their_own() -> None:
    resident = {}
    for heaps in ("one", "many"):
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, heaps],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        resident[heaps] = int(run.stdout)
    assert resident["one"] < 5_000_000
    assert resident["many"] > 20_000_000, "otherwise the test proves nothing"
