"""The supervisor's endpoints on a real server: health, models, metrics."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import requests
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2
from prometheus_client.parser import text_string_to_metric_families

from serving.sockets import client
from tests.running import Running, wait_until
from vision_client import inference_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(autouse=True)
def ready(server: Running) -> None:
    wait_until(lambda: get(server, "/readyz").status_code == 200)


def get(server: Running, path: str) -> requests.Response:
    return requests.get(server.config.metrics + path, timeout=10)


def test_alive(server: Running) -> None:
    assert get(server, "/livez").json() == {"live": True}
    assert get(server, "/ping").json() == {"status": "Healthy"}


def test_the_state_of_every_model(server: Running) -> None:
    models = server.management.models()
    report = get(server, "/readyz").json()
    assert report["ready"] is True
    assert sorted(report["models"]) == sorted(models)
    for model in models:
        reply = get(server, f"/readyz/{model}")
        assert reply.status_code == 200
        state: dict[str, Any] = reply.json()
        assert 0 <= state.pop("answered_s_ago") <= 15
        assert state == {"ready": True, "workers": 1, "wanted": 1, "reason": None}


def test_what_is_served(server: Running) -> None:
    listed = get(server, "/models").json()["models"]
    for entry in listed:
        description = server.management.describe(entry["name"])
        assert entry == {
            "name": description["name"],
            "task": description["spec"]["task"],
            "weights": description["weights"]["name"],
            "version": entry["version"],
            "ready": True,
            "options": entry["options"],
        }
    options = {entry["task"]: entry["options"] for entry in listed}
    assert options["classify"] == {"top_k": {"default": 5, "low": 1, "high": 1000, "multiple": 1}}
    assert options["translate"]["size"] == {"default": 256, "low": 64, "high": 1024, "multiple": 4}
    assert {entry["name"] for entry in listed} == set(server.management.models())


@pytest.mark.parametrize(
    ("path", "kind"), [("/readyz/unknown", "ModelNotFound"), ("/nothing", "NotFound")]
)
def test_what_is_not_there(server: Running, path: str, kind: str) -> None:
    reply = get(server, path)
    assert reply.status_code == 404
    error = reply.json()
    assert (error["code"], error["type"], set(error)) == (404, kind, {"code", "type", "message"})


def test_only_get(server: Running) -> None:
    reply = requests.post(f"{server.config.metrics}/readyz", timeout=10)
    assert (reply.status_code, reply.json()["type"]) == (405, "MethodNotAllowed")


def test_one_scrape_has_all_metrics(server: Running) -> None:
    text = get(server, "/metrics").text
    declared = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(declared) == len(set(declared))
    names = [family.name for family in text_string_to_metric_families(text)]
    assert {"ts_inference_requests", "envoy_server_live", "vision_requests"} <= set(names)


def test_metrics_are_not_for_the_gateway(server: Running) -> None:
    with client(server.run.sockets.control) as http:
        assert http.get("/readyz").status_code == 200
        assert http.get("/metrics").status_code == 404


def test_health_over_grpc(server: Running) -> None:
    address = f"unix:{server.run.sockets.admission.resolve()}"
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for service in ("", *server.management.models()):
            request = health_pb2.HealthCheckRequest(service=service)
            assert check(request, timeout=10).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            check(health_pb2.HealthCheckRequest(service="unknown"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(watch).status == SERVING
        watch.cancel()
        ping = channel.unary_unary(
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping",
            request_serializer=empty_pb2.Empty.SerializeToString,
            response_deserializer=inference_pb2.TorchServeHealthResponse.FromString,
        )
        assert ping(empty_pb2.Empty(), timeout=10).health == "Healthy"
