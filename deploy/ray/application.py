"""The Serve application: a front, and a deployment for each archive."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig

from deploy.ray.archives import fetch
from deploy.ray.front import Front
from deploy.ray.model import Model
from deploy.ray.options import ArchiveOptions, Options, Placement
from handlers.settings import VARIABLES
from serving.archives import Archive, read_archive
from serving.plan import WORKER_DEFAULTS

_QUEUE = 100
# A cluster does not survive the loss of its head, so it is the safest place for a single front.
_HEAD = {"node:__internal_head__": 0.001}
# Of the replicas, at least one: an update starts as many new ones before it ends old ones. Ray's
# default, 0, ends them first.
_SURGE_PERCENT = 20
# Seconds between health checks; a replica is replaced after three failed ones.
_HEALTH_PERIOD_S = 5
# More than any network takes to load, and to answer a batch.
_HEALTH_TIMEOUT_S = 60


def build(arguments: dict[str, Any]) -> serve.Application:
    """The application that ``arguments`` describe, those of ``options.Options``.

    Each archive is fetched and read here too. Raises ArchiveError or ServingError if one cannot
    be served, pydantic's ValidationError for wrong arguments.
    """
    return application(Options(**arguments), Model)


def application(options: Options, model: type[Any]) -> serve.Application:
    """The application whose replicas are instances of ``model``: Model, or a stand-in for it."""
    device = _device(options.device)
    models: dict[str, dict[str, Any]] = {}
    handles: dict[str, serve.Application] = {}
    for each in options.archives:
        path, digest = fetch(each)
        archive = read_archive(path)
        placement = Placement.of(archive.yaml, each.ray, options.workers)
        models[archive.model] = _served(archive, placement)
        # Every replica runs this very file, and another file replaces the replicas.
        source = each.model_copy(update={"sha256": digest})
        handles[archive.model] = _deployment(model, source, archive, placement, options, device)
    front = serve.deployment(
        name="front",
        num_replicas=options.fronts,
        max_ongoing_requests=100_000,  # the queues of the models are the limit
        max_surge_percent=_SURGE_PERCENT,
        ray_actor_options={"num_cpus": 0, "resources": _HEAD if options.fronts == 1 else {}},
    )
    return front(Front).bind(
        models, handles, options.request_bytes, options.memory_bytes, options.api_keys
    )


def _deployment(
    model: type[Any],
    source: ArchiveOptions,
    archive: Archive,
    placement: Placement,
    options: Options,
    device: str,
) -> serve.Application:
    threads = options.threads or max(math.ceil(placement.num_cpus), 1)
    chosen = {"precision": options.precision, "engine": options.engine}
    environment = {
        **{name: os.environ.get(name, value) for name, value in WORKER_DEFAULTS.items()},
        "OMP_NUM_THREADS": str(threads),
        **{VARIABLES[key]: value for key, value in chosen.items() if value},
    }
    resources = {"num_cpus": placement.num_cpus, "num_gpus": placement.num_gpus * (device == "gpu")}
    deployment = serve.deployment(
        name=archive.model,
        # As under TorchServe: two batches per replica, and the others wait.
        max_ongoing_requests=2 * archive.batch_size,
        max_queued_requests=archive.yaml.get("jobQueueSize") or _QUEUE,
        max_surge_percent=_SURGE_PERCENT,
        logging_config={"enable_access_log": False},  # the front has one
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=archive.response_timeout,
        ray_actor_options={**resources, "runtime_env": {"env_vars": environment}},
        **_replicas(placement),
    )
    return deployment(model).bind(source, device)


def _replicas(placement: Placement) -> dict[str, Any]:
    most = placement.max_replicas_per_node
    spread = {"max_replicas_per_node": most} if most else {}
    if placement.min_replicas == placement.max_replicas:
        return {"num_replicas": placement.min_replicas, **spread}
    return {
        **spread,
        "autoscaling_config": AutoscalingConfig(
            min_replicas=placement.min_replicas,
            max_replicas=placement.max_replicas,
            target_ongoing_requests=placement.target_ongoing_requests,
            upscale_delay_s=placement.upscale_delay_s,
            downscale_delay_s=placement.downscale_delay_s,
        ),
    }


def _served(archive: Archive, placement: Placement) -> dict[str, Any]:
    return {
        "name": archive.model,
        "task": archive.task,
        "options": {name: asdict(option) for name, option in archive.options.items()},
        "version": archive.version,
        "longest": archive.response_timeout,
        "replicas": placement.min_replicas,
    }


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    resources = ray.cluster_resources()
    return "gpu" if resources.get("GPU") else "cpu"
