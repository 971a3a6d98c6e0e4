"""The floor of the bench: its best batch, and its own process on a real network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import bare
from benchmarks.pictures import SIZES, photograph


def way(seconds: Iterator[float]) -> Callable[[], object]:
    """Work that takes ``seconds`` in turn, by the clock of ``clockless``."""
    return lambda: next(seconds)


@pytest.fixture
def clockless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work says how long it took, and nothing is waited for."""
    monkeypatch.setattr(bare, "_seconds", lambda once: once())


@pytest.mark.usefixtures("clockless")
def test_one_slow_run_does_not_decide_on_the_best_batch() -> None:
    """A picture takes 10, 9, 8 and 7 ms; the first run of each batch and one of 4 are slow."""
    ways = {
        size: way(itertools.chain([9.0], [9.0] if size == 4 else [], itertools.repeat(size * each)))
        for size, each in ((1, 0.010), (2, 0.009), (4, 0.008), (8, 0.007))
    }
    assert bare.best_batch(ways) == 8


@pytest.mark.usefixtures("clockless")
def test_a_larger_batch_that_is_slower_is_not_taken() -> None:
    ways = {size: way(itertools.repeat(size * each)) for size, each in ((1, 0.010), (2, 0.011))}
    assert bare.best_batch(ways) == 1


@pytest.mark.slow
def test_every_kind_of_work_is_measured(model_store: Path, tmp_path: Path) -> None:
    picture = tmp_path / "small.jpg"
    picture.write_bytes(photograph(SIZES["320x240"]))
    with bare.bare(model_store / "resnet101.pt", "cpu") as process:
        found = {work: process.measure(work, picture, 0.1, 1) for work in bare.WORKS}
        best = process.measure("decode", picture, 0.1)
    assert {time.batch for time in found.values()} == {1}
    assert found["pipeline"].ms > found["decode"].ms > 0
    assert best.batch in bare.BATCHES["classes"]
    assert process.loaded.precision in ("float32", "bfloat16")
