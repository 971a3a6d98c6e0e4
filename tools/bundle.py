"""An untrained bundle of a tool's own, with its own configuration, run folder and ports."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from serving.config import Config
from serving.errors import ServingError
from serving.sockets import free_ports

ROOT = Path(__file__).parents[1]


def export(store: Path) -> None:
    """Every network, untrained; those in ``store`` that are current are kept."""
    python("export", "--weights", "random", "--model-store", str(store))


@contextlib.contextmanager
def started(
    store: Path,
    folder: Path,
    device: str,
    workers: int | None = None,
    *,
    gateway: bool = True,
    engine: str | None = None,
    precision: str | None = None,
    shell: Mapping[str, str] | None = None,
    **properties: str,
) -> Iterator[tuple[Config, float]]:
    """A server of the archives in ``store``, and the seconds until every model answered.

    ``device`` is auto, gpu or cpu; ``workers`` are per model; ``engine`` and ``precision`` are
    those of the archives unless given; ``shell`` adds environment variables, ``properties`` change
    config.properties. ``folder`` has the logs. ServingError if the server does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bundle.properties"  # the server writes a config.properties there
    properties = {
        "model_store": str(store.resolve()),
        **free_addresses("inference", "metrics"),
        **properties,
    }
    Config.read(ROOT / "config.properties").write(path, **properties)
    where = ["--config", str(path), "--run-dir", str(folder)]
    python("serving", "stop", *where)  # a server that a killed tool has left
    try:
        chosen = {"--workers": workers, "--engine": engine, "--precision": precision}
        options = ["--device", device]
        options += [f"{name}={value}" for name, value in chosen.items() if value is not None]
        options += [] if gateway else ["--no-gateway"]
        begun = time.monotonic()
        python("serving", "start", *where, *options, **(shell or {}))
        yield Config.read(path), time.monotonic() - begun
    finally:
        python("serving", "stop", *where)


def python(module: str, *arguments: str, **environment: str) -> None:
    """Run ``python -m module``; its output goes to standard error. ServingError if it fails."""
    command, variables = [sys.executable, "-m", module, *arguments], {**os.environ, **environment}
    done = subprocess.run(command, cwd=ROOT, env=variables, stdout=sys.stderr, check=False)
    if done.returncode:
        raise ServingError(f"python -m {module} ended with status {done.returncode}")


def free_addresses(*apis: str) -> dict[str, str]:
    """The address properties of REST ``apis`` and of gRPC, on free ports of loopback."""
    ports = list(map(str, free_ports(2 * len(apis))))
    urls = {f"{api}_address": f"http://127.0.0.1:{ports.pop()}" for api in apis}
    return urls | {f"grpc_{api}_port": ports.pop() for api in apis if api != "metrics"}
