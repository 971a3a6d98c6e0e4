"""What a start will take of the machine: workers, their threads, queues and memory."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from handlers.pictures.limits import Limits
from serving.config import DEFAULT_SIZE, Config
from serving.errors import ServingError
from serving.preflight import read_limits, read_yaml

# cgroup v2, as a container sees its own: "max", or bytes.
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
# TorchServe's own objects and what a request is parsed into, beside the bodies that it keeps.
_HEAP_SPARE = 256 * 2**20
# A worker on the CPU: Python, PyTorch, the weights and the network's intermediate results.
_WORKER_BYTES = 2 * 2**30
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Plan:
    """How one model will be served; ``queue`` counts requests that wait, over all workers."""

    model: str
    workers: int
    batch: int
    queue: int
    limits: Limits


def plan(config: Config, models: Mapping[str, Path], gpus: int, workers: int | None) -> list[Plan]:
    """How each of ``models``, archives by name, is served on ``gpus`` GPUs (0: the CPU).

    Each gets ``workers`` workers; where that is None, one per GPU and at least as many as its YAML
    says.
    """
    return [_plan(config, model, path, gpus, workers) for model, path in models.items()]


def threads(plans: Collection[Plan], cores: int) -> int:
    """Threads of each worker: its share of the cores. The models use the same cores in turn."""
    return max(cores // max(plan.workers for plan in plans), 1)


def check_heap(config: Config, plans: Collection[Plan]) -> None:
    """ServingError where full queues of the largest requests do not fit the JVM's heap.

    TorchServe keeps the body of a request until it is answered, and ends when the heap is full.
    """
    kept = sum(plan.queue + plan.workers * plan.batch for plan in plans)
    need = kept * config.number("max_request_size", DEFAULT_SIZE) + _HEAP_SPARE
    if need > _heap(config):
        raise ServingError(
            f"{kept} requests of max_request_size can wait or be in work, which takes "
            f"{need / 2**30:.1f} GiB of Java's heap, and vmargs in {config.path} allow "
            f"{_heap(config) / 2**30:.1f}: set -Xmx{-(-need // 2**30)}g there, or a smaller "
            "jobQueueSize in the models' YAML"
        )


def memory_warning(config: Config, plans: Collection[Plan], available: int, cores: int) -> str:
    """What to tell where all limits together exceed ``available`` bytes; empty where they fit."""
    decoders = sum(
        plan.workers * min(plan.batch, threads(plans, cores)) * plan.limits.decode_bytes
        for plan in plans
    )
    parts = {
        "Java's heap": _heap(config),
        "its direct memory": _direct(config),
        "workers": sum(plan.workers for plan in plans) * _WORKER_BYTES,
        "decode processes": decoders,
    }
    need = sum(parts.values())
    if need <= available:
        return ""
    listed = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in parts.items())
    return (
        f"at its limits the server takes {need / 2**30:.1f} GiB ({listed}), and "
        f"{available / 2**30:.1f} GiB are free: under the heaviest load the system may end it. "
        f"Fewer models in load_models, a smaller -Xmx in {config.path} with smaller jobQueueSizes, "
        "or a smaller decode_bytes lower it"
    )


def available_memory(limit: Path = _MEMORY_LIMIT) -> int:
    """Bytes: what the system can give without swapping, within the container's limit."""
    available: int = psutil.virtual_memory().available
    try:
        return min(available, int(limit.read_text()))
    except (OSError, ValueError):
        return available  # no cgroup v2, or no limit: "max"


def _plan(config: Config, model: str, path: Path, gpus: int, workers: int | None) -> Plan:
    yaml = read_yaml(path)
    # TorchServe uses minWorkers and maxWorkers only where both are set.
    least, most = yaml.get("minWorkers", 0), yaml.get("maxWorkers", 0)
    archived = least if 0 < least <= most else config.number("default_workers_per_model", 1)
    return Plan(
        model,
        workers or max(archived, gpus, 1),
        yaml.get("batchSize", 1),
        yaml.get("jobQueueSize") or config.number("job_queue_size", 100),
        read_limits(path),
    )


def _heap(config: Config) -> int:
    """The JVM's own choice is a quarter of the machine."""
    return _option(config, "-Xmx") or psutil.virtual_memory().total // 4


def _direct(config: Config) -> int:
    """The JVM's own choice is as much as the heap."""
    return _option(config, "-XX:MaxDirectMemorySize=") or _heap(config)


def _option(config: Config, name: str) -> int | None:
    """Bytes of the last option of that name in vmargs."""
    found = [
        re.fullmatch(name + r"(\d+)([kmgt]?)", arg, re.IGNORECASE) for arg in config.jvm_options
    ]
    sizes = [int(match[1]) * _UNITS[match[2].lower()] for match in found if match]
    return sizes[-1] if sizes else None
