"""Routes, methods and the health of the server."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.conftest import MODELS
from tests.routes import TIMEOUT_S, Server
from tests.running import wait_until


def send(server: Server, verb: str, path: str) -> tuple[int, str]:
    """Status and error type of a request whose path is sent as it is."""
    connection = http.client.HTTPConnection(urlsplit(server.rest).netloc, timeout=TIMEOUT_S)
    try:
        connection.request(verb, path, b"x" if verb in ("POST", "PUT") else None)
        response = connection.getresponse()
        content = response.read()
        if response.status < 400:
            return response.status, ""
        media_type, _, _ = str(response.getheader("content-type")).partition(";")
        assert media_type == "application/json"
        error = json.loads(content)
        assert error["message"]
        assert error["code"] == response.status
        own = error["type"].endswith("Exception")  # TorchServe's
        assert response.getheader("x-error-type") == (None if own else error["type"])
        return response.status, error["type"]
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("route", "code", "type"),
    [
        ("POST /predictions/resnet101", 400, "BadImage"),
        ("PUT /predictions/resnet101", 400, "BadImage"),
        ("POST /predictions/resnet101/2.0", 404, "ModelNotFound"),
        ("POST /predictions/resnet101/00c0ffee", 404, "ModelNotFound"),
        ("GET /predictions/resnet101", 405, "MethodNotAllowed"),
        ("DELETE /predictions/resnet101", 405, "MethodNotAllowed"),
        ("OPTIONS /predictions/resnet101", 405, "MethodNotAllowed"),
        ("POST /readyz", 405, "MethodNotAllowed"),
        ("POST /predictions/nothing", 404, "ModelNotFound"),
        ("POST /predictions/resnet1012", 404, "ModelNotFound"),
        ("POST /predictions/", 404, "NotFound"),
        ("GET /", 404, "NotFound"),
        ("OPTIONS /", 404, "NotFound"),
        ("GET /api-description", 404, "NotFound"),
        ("POST /explanations/resnet101", 404, "NotFound"),
        ("POST /invocations?model_name=resnet101", 404, "NotFound"),
        ("POST /resnet101/predict", 404, "NotFound"),
        ("POST /v1/models/resnet101:predict", 404, "NotFound"),
        ("POST /models/resnet101/invoke", 404, "NotFound"),
        ("GET /models/resnet101", 404, "NotFound"),
        ("DELETE /models/resnet101", 404, "NotFound"),
        ("GET /metrics", 404, "NotFound"),
        ("GET /-/routes", 404, "NotFound"),
        ("GET /-/healthz", 404, "NotFound"),
        ("POST /predictions/resnet101/../../models", 405, "MethodNotAllowed"),
        (
            "POST /predictions/resnet101/%2e%2e/%2e%2e/explanations/resnet101",
            404,
            "NotFound",
        ),
        ("POST //predictions//resnet101", 400, "BadImage"),
        ("POST /predictions%2fresnet101", 400, "BadRequest"),
        ("POST /predictions/resnet101%5c..", 400, "BadRequest"),
        ("POST /predictions/resnet101?top_k=1", 400, "BadRequest"),
        ("GET /livez", 200, ""),
        ("GET /readyz", 200, ""),
        ("GET /models", 200, ""),
        ("GET /ping", 200, ""),
    ],
)
def test_only_the_contract_has_routes(served: Server, route: str, code: int, type: str) -> None:
    verb, _, path = route.partition(" ")
    assert send(served, verb, path) == served.expected(route, (code, type))


def test_a_request_may_name_the_version(served: Server) -> None:
    answer = requests.post(served.url("resnet101"), data=b"x", timeout=TIMEOUT_S)
    version = answer.headers["x-model-version"]
    assert re.fullmatch("[0-9a-f]{8}", version)
    named = requests.post(served.url(f"resnet101/{version}"), data=b"x", timeout=TIMEOUT_S)
    assert (named.status_code, named.json()["type"]) == (400, "BadImage")
    assert named.headers["x-model-version"] == version


def test_a_refused_query_names_the_header(served: Server, jpeg: bytes) -> None:
    answer = requests.post(served.url("resnet101?top_k=1"), data=jpeg, timeout=TIMEOUT_S)
    message = answer.json().get("message", "")
    advice = message.endswith("send top_k as the header x-top-k")
    assert advice is served.expected("a query is refused with advice", True)


def test_the_port_of_grpc_serves_rest_too(served: Server) -> None:
    try:
        answer = requests.get(f"http://{served.grpc_address}/livez", timeout=TIMEOUT_S)
        found = answer.json() == {"live": True}
    except requests.RequestException:
        found = False
    assert found is served.expected("the port of gRPC serves REST", True)


def get(served: Server, path: str) -> tuple[int, Any]:
    answer = requests.get(served.health + path, timeout=TIMEOUT_S)
    return answer.status_code, answer.json()


@pytest.fixture
def _ready(served: Server) -> None:
    wait_until(lambda: get(served, "/readyz")[0] == 200)


@pytest.mark.usefixtures("_ready")
def test_health(served: Server) -> None:
    assert get(served, "/livez") == (200, {"live": True})
    assert get(served, "/ping") == (200, {"status": "Healthy"})
    status, report = get(served, "/readyz")
    assert (status, report["ready"], sorted(report["models"])) == (200, True, sorted(MODELS))
    for model in MODELS:
        status, state = get(served, f"/readyz/{model}")
        assert 0 <= state.pop("answered_s_ago") <= 15
        ready = {"ready": True, "workers": 1, "wanted": 1, "reason": None}
        assert (status, state) == (200, ready)
    status, error = get(served, "/readyz/nothing")
    assert (status, error["code"], error["type"]) == (404, 404, "ModelNotFound")


@pytest.mark.usefixtures("_ready")
def test_models(served: Server) -> None:
    status, listed = get(served, "/models")
    assert status == 200
    models = {model.pop("name"): model for model in listed["models"]}
    answer = requests.post(served.url("resnet101"), data=b"x", timeout=TIMEOUT_S)
    assert models["resnet101"]["version"] == answer.headers["x-model-version"]
    assert sorted(models) == sorted(MODELS)
    assert models["resnet101"] == {
        "task": "classify",
        "weights": "untrained",
        "version": models["resnet101"]["version"],
        "ready": True,
        "options": {"top_k": {"default": 5, "low": 1, "high": 1000, "multiple": 1}},
    }
    assert models["cyclegan"]["options"]["size"] == {
        "default": 256,
        "low": 64,
        "high": 1024,
        "multiple": 4,
    }
