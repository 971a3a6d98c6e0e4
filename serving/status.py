"""What `make status` shows: one report of a server, as text or as JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx

from serving.management import Management
from serving.runfolder import RunFolder
from serving.sockets import client

TIMEOUT_S = 15
# Of a worker's description; null while it does not answer.
_DESCRIBED = ("precision", "precision_reason", "engine", "engine_reason", "sandbox")


def report(run: RunFolder) -> dict[str, Any]:
    """The server of ``run``, for JSON. Times are in seconds, memory in bytes.

    ``reason`` is why the server, or a model, is not ready, or None. What is not known is None.
    """
    supervisor, config = run.supervisor(), run.config()
    found: dict[str, Any] = {
        "ready": False,
        "reason": f"no server of {run.path} is running: {run.make('start')}",
        "run": str(run.path),
        "process": supervisor and supervisor.pid,
        "uptime_s": supervisor and round(time.time() - supervisor.create_time(), 1),
        "rest": config and config.inference,
        "grpc": config and config.grpc,
        "metrics": config and config.metrics,
        "models": {},
    }
    if supervisor is None:
        return found
    health = _ask(run, "/readyz")
    if health is None:
        return found | {"reason": f"process {supervisor.pid} does not answer: see {run.path}"}
    if "models" not in health:
        return found | {"reason": f"the server is {health['reason']}"}
    listed = (_ask(run, "/models") or {}).get("models", [])
    known = {model["name"]: model for model in listed}
    queues, versions = _ask(run, "/queues") or {}, _ask(run, "/versions") or {}
    management = Management.of(run)
    models = {
        model: {
            "ready": state["ready"],
            "reason": state["reason"],
            **{key: known.get(model, {}).get(key) for key in ("task", "weights", "version")},
            "versions": versions.get(model, []),
            **_described(management, model),
            "queue": _queue(management, model, queues.get(model, {})),
            "wanted": state.get("wanted"),
            "workers": _workers(management, model),
        }
        for model, state in health["models"].items()
    }
    reason = None if health["ready"] else "a model is not ready"
    return found | {"ready": health["ready"], "reason": reason, "models": models}


def as_text(found: Mapping[str, Any]) -> str:
    """``report`` for a person."""
    if found["reason"] and not found["models"]:
        return str(found["reason"])
    up = timedelta(seconds=round(found["uptime_s"]))
    lines = [
        f"{found['rest']}, gRPC {found['grpc']}, process {found['process']} of {found['run']}, up "
        f"{up}"
    ]
    for name, model in found["models"].items():
        lines.append(f"{name:<10} {'answers' if model['ready'] else model['reason']}")
        if model["weights"]:
            lines.append(f"  version {model['version']}, weights {model['weights']}")
        lines += map(_version_line, model["versions"][1:])
        if model["precision"]:
            lines += [
                f"  {key} {model[key]}: {model[f'{key}_reason']}" for key in ("precision", "engine")
            ]
            lines.append(f"  decoders confined by {', '.join(model['sandbox']) or 'nothing'}")
        if model["queue"]["waiting"] is not None:
            lines.append("  queue {waiting} of {limit} requests".format(**model["queue"]))
        lines += map(_worker_line, model["workers"])
    return "\n".join(lines)


def _version_line(version: Mapping[str, Any]) -> str:
    """A version beside the one that answers."""
    share = f"gets {version['share']:.4g} of the requests, " * (version["role"] == "candidate")
    state = "answers" if version["ready"] else "does not answer"
    return f"  {version['role']} {version['version']}, weights {version['weights']}: {share}{state}"


def _worker_line(worker: Mapping[str, Any]) -> str:
    memory = f", {worker['memory_bytes'] / 2**20:.0f} MiB" if worker["memory_bytes"] else ""
    return (
        f"  worker {worker['id']}  {worker['status']:<9} {worker['device']}, "
        f"process {worker['process']}{memory}"
    )


def _ask(run: RunFolder, path: str) -> dict[str, Any] | None:
    """The supervisor's answer, or None."""
    try:
        with client(run.sockets.control) as http:
            answer: dict[str, Any] = http.get(path, timeout=TIMEOUT_S).json()
            return answer
    except (httpx.HTTPError, ValueError):
        return None


def _described(management: Management, model: str) -> dict[str, Any]:
    try:
        description = management.describe(model, timeout=TIMEOUT_S)
    except httpx.HTTPError:
        description = {}
    return {key: description.get(key) for key in _DESCRIBED}


def _queue(management: Management, model: str, queue: Mapping[str, Any]) -> dict[str, Any]:
    """The gateway's queue of ``model``; TorchServe's if there is no gateway."""
    waiting = queue.get("waiting")
    if waiting is None:
        try:
            waiting = management.pending(model)
        except httpx.HTTPError:
            waiting = None
    return {"waiting": waiting, "limit": queue.get("limit")}


def _workers(management: Management, model: str) -> list[dict[str, Any]]:
    try:
        workers = management.workers(model, timeout=TIMEOUT_S)
    except httpx.HTTPError:
        return []
    return [
        {
            "id": worker.id,
            "process": worker.pid,
            "status": worker.status,
            "device": worker.device,
            "memory_bytes": worker.rss or None,
        }
        for worker in workers
    ]
