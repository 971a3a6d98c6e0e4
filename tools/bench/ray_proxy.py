"""The limit of Ray's proxy, and of the front behind it: requests for which nothing is computed."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.bench import report, usage
from tools.bench.common import FOLDER, Result
from tools.bench.load import Load, measure
from tools.bench.spawn import free_ports, ray_server
from vision_client.endpoint import Access, Endpoint
from vision_client.rest import Rest

# The proxies of Ray Serve, by what RAY_SERVE_ENABLE_HA_PROXY says.
PROXIES = {"HAProxy": "1", "Ray's Python proxy": "0"}
CLIENTS, BODY_BYTES = 16, 100_000
# Nothing of ours ran on a GPU yet: a classifier's photographs per second on one, an assumption.
GPU_RATE = 1000
# By the first word of a process's command line, which may be a path.
_PARTS = {"haproxy": "proxy", "ray::ProxyActor": "proxy", "ray::ServeReplica:vision:front": "front"}


@dataclass(frozen=True)
class Limit:
    """``lone`` and ``many`` clients; ``cpu_ms`` of a core for each request, by part of the server.

    The parts are the proxy, the front, and the others.
    """

    lone: Result
    many: Result
    cpu_ms: Mapping[str, float]


def limit(proxy: str, mar: Path, seconds: float) -> Limit:
    """Measure ``proxy`` before a model of the name of ``mar`` that computes nothing."""
    logging.info("starting a model that computes nothing behind %s", proxy)
    FOLDER.mkdir(parents=True, exist_ok=True)
    body = FOLDER / "body"
    body.write_bytes(np.random.default_rng(0).bytes(BODY_BYTES))
    url, ports = free_ports()
    command = [sys.executable, "-m", "tools.bench.ray_null", str(mar), *ports]
    environment = {"RAY_SERVE_ENABLE_HA_PROXY": PROXIES[proxy]}
    log = FOLDER / "ray_null.log"
    with ray_server(command, log, url, environment) as process:
        how = url, mar.stem, body, seconds
        lone = measure(Load(f"{proxy}, lone client", *how, 1))
        answered, before = _answered(url, mar.stem), usage.cpu_seconds(process)
        many = measure(Load(f"{proxy}, {CLIENTS} clients", *how, CLIENTS))
        after = usage.cpu_seconds(process)
        return Limit(lone, many, by_part(before, after, _answered(url, mar.stem) - answered))


def by_part(
    before: Mapping[str, float], after: Mapping[str, float], requests: int
) -> dict[str, float]:
    """Milliseconds for each request; the CPU times are in seconds, by command."""
    parts = {"proxy": 0.0, "front": 0.0, "others": 0.0}
    for command, seconds in after.items():
        part = _PARTS.get(command.rpartition("/")[2], "others")
        parts[part] += 1e3 * (seconds - before.get(command, 0.0)) / requests
    return parts


def _answered(url: str, model: str) -> int:
    """How many requests the model has answered."""
    reply = Rest(Endpoint.parse(url), Access()).send(model, b"-", {}, timeout=30)
    return int(json.loads(reply.body)["answered"])


def lines(limits: Mapping[str, Limit]) -> list[str]:
    """A table, and the number of GPUs that one proxy and one front serve, on paper."""
    head = f"{'requests/s':>10} {'p50':>8} {'p95':>8} {'p99':>8}  ms"
    table = [f"\n{f'nothing computed, bodies of {BODY_BYTES // 1000} KB':<38} {head}"]
    for each in limits.values():
        table += [report.line([each.lone]), report.line([each.many])]
    table.append(
        f"\n{'ms of a core for each request':<38} {'proxy':>10} {'front':>8} {'others':>8}"
    )
    for name, each in limits.items():
        proxy, front, others = (each.cpu_ms[part] for part in ("proxy", "front", "others"))
        table.append(f"  {name:<36} {proxy:>10.2f} {front:>8.2f} {others:>8.2f}")
    table.append(f"\nOn paper, if a GPU classified {GPU_RATE} pictures/s (an assumption):")
    for name, each in limits.items():
        proxy, front = (1e3 / each.cpu_ms[part] for part in ("proxy", "front"))
        table.append(
            f"  {name}: {proxy:.0f} requests/s of a core, for {proxy / GPU_RATE:.2f} GPUs; one "
            f"front behind it: {front:.0f} requests/s, for {front / GPU_RATE:.2f} GPUs"
        )
    return table
