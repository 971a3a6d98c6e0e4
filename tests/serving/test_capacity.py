"""Workers, threads and memory are decided before the start, from what is asked for and archived."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from serving import capacity, preflight
from serving.capacity import Plan
from serving.config import Config
from serving.errors import ServingError

GIB = 2**30
Make = Callable[..., Path]


@pytest.fixture
def archived(tmp_path: Path, make_config: Make) -> Callable[..., Config]:
    """A configuration, with ``changes``, of archives that hold nothing but these YAMLs."""

    def make(yamls: dict[str, dict[str, Any]], **changes: str) -> Config:
        for name, yaml in yamls.items():
            with zipfile.ZipFile(tmp_path / f"{name}.mar", "w") as archive:
                manifest = {"modelName": name, "configFile": "model.yaml"}
                manifest |= {"handler": "model.yaml", "serializedFile": "model.yaml"}
                archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": manifest}))
                archive.writestr("model.yaml", json.dumps(yaml))
        changes = {"load_models": ",".join(f"{name}.mar" for name in yamls), **changes}
        return Config.read(make_config(tmp_path, tmp_path, **changes))

    return make


def plans(config: Config, *, gpus: int = 0, workers: int | None = None) -> list[Plan]:
    return capacity.plan(config, preflight.check_archives(config), gpus, workers)


ONE = {"minWorkers": 1, "maxWorkers": 1}
THREE = {"minWorkers": 3, "maxWorkers": 3}


@pytest.mark.parametrize(
    ("gpus", "workers", "expected", "threads"),
    [
        (0, None, [1, 3], 5),
        (2, None, [2, 3], 5),
        (8, None, [8, 8], 2),
        (8, 1, [1, 1], 16),
        (0, 4, [4, 4], 4),
        (0, 40, [40, 40], 1),
    ],
)
def test_workers_and_their_share_of_16_cores(
    archived: Any, gpus: int, workers: int | None, expected: list[int], threads: int
) -> None:
    found = plans(archived({"a": ONE, "b": THREE}), gpus=gpus, workers=workers)
    assert [plan.workers for plan in found] == expected
    assert capacity.threads(found, 16) == threads


def test_workers_where_the_yaml_says_half(archived: Any) -> None:
    """As TorchServe: minWorkers alone counts for nothing."""
    config = archived({"a": {"minWorkers": 3}, "b": {}}, default_workers_per_model="2")
    assert [plan.workers for plan in plans(config)] == [2, 2]


def test_the_queue_is_the_yamls(archived: Any) -> None:
    config = archived({"a": {"jobQueueSize": 7}, "b": {}}, job_queue_size="50")
    assert [plan.queue for plan in plans(config)] == [7, 50]


def test_full_queues_fit_the_heap(archived: Any) -> None:
    yamls = {"a": {**ONE, "batchSize": 8}, "b": {**ONE, "batchSize": 4, "jobQueueSize": 20}}
    sizes = {"max_request_size": str(2**25), "job_queue_size": "100"}
    small = archived(yamls, vmargs="-Xmx9g -Xmx4096m", **sizes)
    with pytest.raises(ServingError, match=r"132 requests .* 4.4 GiB .* allow 4.0: set -Xmx5g"):
        capacity.check_heap(small, plans(small))
    large = archived(yamls, vmargs="-Xmx5g", **sizes)
    capacity.check_heap(large, plans(large))
    with pytest.raises(ServingError, match="set -Xmx"):
        capacity.check_heap(large, plans(large, gpus=8))


def test_what_exceeds_the_machine_is_told(archived: Any) -> None:
    yamls = {"a": {**ONE, "batchSize": 8}, "b": {**ONE, "batchSize": 1}}
    config = archived(yamls, vmargs="-Xmx4g -XX:MaxDirectMemorySize=1g")
    found = plans(config)
    # On two cores: 4 + 1 + 2 workers of 2, and 2 + 1 decode processes of 0.5.
    assert capacity.memory_warning(config, found, int(10.5 * GIB), cores=2) == ""
    told = capacity.memory_warning(config, found, 10 * GIB, cores=2)
    assert "10.5 GiB (Java's heap 4.0, its direct memory 1.0, workers 4.0" in told
    assert "decode processes 1.5), and 10.0 GiB are free" in told
    assert "-Xmx" in told
    assert "decode processes 3.0)" in capacity.memory_warning(config, found, 0, cores=5)


def test_a_container_counts(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    machine = capacity.available_memory(limit)
    assert machine > GIB // 4
    limit.write_text("max\n")
    assert capacity.available_memory(limit) > machine // 2
    limit.write_text(f"{2**20}\n")
    assert capacity.available_memory(limit) == 2**20


def test_a_wrong_number_is_named(archived: Any) -> None:
    config = archived({"a": ONE}, job_queue_size="many")
    with pytest.raises(ServingError, match=r"job_queue_size in .* a whole number, not many"):
        plans(config)


def test_this_configuration_fits(model_store: Path, tmp_path: Path, make_config: Make) -> None:
    config = Config.read(make_config(tmp_path, model_store))
    for gpus in (0, 8):
        capacity.check_heap(config, plans(config, gpus=gpus))


@pytest.mark.slow
def test_torchserve_heeds_the_queue_of_the_yaml(server: Any) -> None:
    for model, queue in (("resnet101", 100), ("cyclegan", 8)):
        url = f"{server.config.management}/models/{model}"
        (found,) = requests.get(url, timeout=30).json()
        assert found["jobQueueStatus"] == {"remainingCapacity": queue, "pendingRequests": 0}
