"""Health over gRPC: the standard protocol, and TorchServe's Ping."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conftest import MODELS
from tests.routes import TIMEOUT_S, Server
from tests.running import wait_until

NAMES = health_pb2.HealthCheckResponse.ServingStatus.Name


@pytest.fixture
def health(served: Server) -> Iterator[health_pb2_grpc.HealthStub]:
    with grpc.insecure_channel(served.grpc_address) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def check(health: health_pb2_grpc.HealthStub, service: str) -> str:
    """The state of ``service``, or the status of the refusal."""
    request = health_pb2.HealthCheckRequest(service=service)
    try:
        return str(NAMES(health.Check(request, timeout=TIMEOUT_S).status))
    except grpc.RpcError as error:
        return str(error.code().name)


def watch(health: health_pb2_grpc.HealthStub, service: str) -> str:
    """The same, by the first message of ``Watch``."""
    call = health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
    try:
        return str(NAMES(next(call).status))
    except grpc.RpcError as error:
        return str(error.code().name)
    finally:
        call.cancel()


@pytest.mark.parametrize("ask", [check, watch])
@pytest.mark.parametrize("service", ["", *MODELS])
def test_health(
    served: Server, health: health_pb2_grpc.HealthStub, ask: Callable[..., str], service: str
) -> None:
    expected = served.expected("gRPC: health", "SERVING")
    wait_until(lambda: ask(health, service) == expected)


@pytest.mark.parametrize(("ask", "status"), [(check, "NOT_FOUND"), (watch, "SERVICE_UNKNOWN")])
def test_the_health_of_an_unknown_model(
    served: Server, health: health_pb2_grpc.HealthStub, ask: Callable[..., str], status: str
) -> None:
    assert ask(health, "nothing") == served.expected("gRPC: health of an unknown model", status)


def test_ping(served: Server) -> None:
    assert "Healthy" in served.grpc.Ping(empty_pb2.Empty(), timeout=TIMEOUT_S).health
