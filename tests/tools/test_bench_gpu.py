"""`make bench-gpu` on a machine without a GPU: the same path on the CPU, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.networks import registered
from tools.bench import bare, gpu
from tools.bench.pictures import photographs

pytestmark = pytest.mark.slow


@pytest.fixture
def classifier() -> str:
    return next(name for name, network in registered().items() if network.task == "classify")


def test_every_kind_of_work_is_measured(model_store: Path, tmp_path: Path, classifier: str) -> None:
    picture = photographs(tmp_path)["320x240"]
    with bare.bare(model_store / f"{classifier}.pt", "cpu", picture, 1) as floor:
        results = [floor(work, 0.1, (1,)) for work in ("decode", "network", "pipeline")]
    assert [result.label for result in results] == [
        "bare decode, one core, batch 1",
        "bare network, batch 1",
        "bare pipeline, batch 1",
    ]
    assert results[2].ms > results[0].ms
    assert all(result.memory > 100e6 for result in results)


def test_the_bundle_is_compared_with_the_floors(
    model_store: Path, tmp_path: Path, classifier: str
) -> None:
    floors, served = gpu.compare(classifier, model_store, tmp_path, "cpu")
    assert [result.label.split(",")[0] for result in floors] == [
        "bare network",
        "bare network",
        "bare decode",
    ]
    assert [result.label for result in served] == ["bundle, 1 worker(s)"]
    assert "limit: bare network" in gpu.verdict(floors, served)
