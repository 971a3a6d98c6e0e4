"""`make bench-gpu` where there is no GPU: the same path, on the CPU and short."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.bare import Time
from benchmarks.gpu import CPU, Measured, measure, report
from tests.benchmarks.samples import outcome

MACHINE: dict[str, str | int | float] = {
    "cpu": "a CPU", "cores": 16, "memory_gib": 1.0, "gpu": "a GPU", "torch": "2", "date": "today",
}  # fmt: skip


def test_the_slower_of_network_and_decoding_is_the_limit() -> None:
    network = {1: Time(2.0, 1, 0), 32: Time(0.5, 32, 0)}
    served = {1: outcome(800.0), 2: outcome(1000.0), 4: outcome(900.0)}
    parity = {"resnet101": "float16: met"}
    found = Measured(MACHINE, "float16", network, 1250.0, served, parity)
    last = report(found).splitlines()[-1]
    assert last == (
        "limit: decoding on all cores, 1250.0 pictures/s; with 2 worker(s) the bundle reaches "
        "0.80 of it, goal >= 0.80: met"
    )
    last = report(dataclasses.replace(found, decode=3000.0)).splitlines()[-1]
    assert last.startswith("limit: the bare network, 2000.0")
    assert last.endswith("0.50 of it, goal >= 0.80: NOT met")


@pytest.mark.slow
def test_it_measures_on_the_cpu(model_store: Path, tmp_path: Path) -> None:
    found = measure(model_store, tmp_path, "cpu", CPU)
    assert found.network.keys() == set(CPU.batches)
    assert found.served.keys() == set(CPU.workers)
    assert found.decode > 0
    assert found.parity.keys() == {"resnet101", "cyclegan"}
    assert "limit: " in report(found)
