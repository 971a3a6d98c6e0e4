"""The gateway over HTTP: routes, sizes, ids, errors, the access log."""

from __future__ import annotations

import http.client
import json
import socket
import uuid
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
import requests

from tests.routes import post, predict
from tests.running import Running, wait_until
from tests.serving.gateway.logs import access, worker_log

TIMEOUT_S = 30


def send(server: Running, verb: str, path: str, **headers: str) -> tuple[int, dict[str, object]]:
    """The status and the JSON of a request whose path is sent as it is."""
    address = urlsplit(server.config.inference)
    connection = http.client.HTTPConnection(address.netloc, timeout=TIMEOUT_S)
    try:
        body = b"x" if verb in ("POST", "PUT") else None
        connection.request(verb, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        if response.status >= 400:
            media_type, _, _ = str(response.getheader("content-type")).partition(";")
            assert media_type == "application/json"
            assert response.getheader("x-error-type") == json.loads(content)["type"]
        return response.status, json.loads(content)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("verb", "path", "code", "type"),
    [
        ("POST", "/predictions/resnet101", 400, "BadImage"),
        ("PUT", "/predictions/resnet101", 400, "BadImage"),
        ("POST", "/predictions/resnet101/1.0", 400, "BadImage"),
        ("GET", "/predictions/resnet101", 405, "MethodNotAllowed"),
        ("DELETE", "/predictions/resnet101", 405, "MethodNotAllowed"),
        ("OPTIONS", "/predictions/resnet101", 405, "MethodNotAllowed"),
        ("POST", "/readyz", 405, "MethodNotAllowed"),
        ("POST", "/predictions/nothing", 404, "ModelNotFound"),
        ("POST", "/predictions/resnet1012", 404, "ModelNotFound"),
        ("POST", "/predictions/", 404, "NotFound"),
        ("GET", "/", 404, "NotFound"),
        ("OPTIONS", "/", 404, "NotFound"),
        ("GET", "/api-description", 404, "NotFound"),
        ("POST", "/explanations/resnet101", 404, "NotFound"),
        ("POST", "/invocations?model_name=resnet101", 404, "NotFound"),
        ("POST", "/resnet101/predict", 404, "NotFound"),
        ("POST", "/v1/models/resnet101:predict", 404, "NotFound"),
        ("POST", "/models/resnet101/invoke", 404, "NotFound"),
        ("GET", "/models/resnet101", 404, "NotFound"),
        ("DELETE", "/models/resnet101", 404, "NotFound"),
        ("GET", "/metrics", 404, "NotFound"),
        ("POST", "/predictions/resnet101/../../models", 405, "MethodNotAllowed"),
        ("POST", "/predictions/resnet101/%2e%2e/%2e%2e/explanations/resnet101", 404, "NotFound"),
        ("POST", "//predictions//resnet101", 400, "BadImage"),
        ("POST", "/predictions%2fresnet101", 400, "BadRequest"),
        ("POST", "/predictions/resnet101%5c..", 400, "BadRequest"),
    ],
)
def test_only_the_contract_has_routes(
    server: Running, verb: str, path: str, code: int, type: str
) -> None:
    status, error = send(server, verb, path)
    assert (status, error["code"], error["type"]) == (code, code, type)
    assert error["message"]


def test_health_and_models_have_routes(server: Running) -> None:
    assert send(server, "GET", "/livez") == (200, {"live": True})
    assert send(server, "GET", "/ping") == (200, {"status": "Healthy"})
    status, report = send(server, "GET", "/readyz")
    assert (status, report["ready"]) == (200, True)
    status, report = send(server, "GET", "/readyz/cyclegan")
    assert (status, report["ready"]) == (200, True)
    assert send(server, "GET", "/readyz/nothing")[0] == 404
    _, listed = send(server, "GET", "/models")
    model = {
        "name": "resnet101",
        "task": "classify",
        "weights": "untrained",
        "ready": True,
        "options": {"top_k": {"default": 5, "low": 1, "high": 1000, "multiple": 1}},
    }
    assert model in listed["models"]  # type: ignore[operator]


def test_a_request_that_is_too_large_is_refused_in_json(server: Running) -> None:
    oversized = server.config.number("max_request_size", 0) + 1
    for data in (b"x" * oversized, iter([b"x" * oversized])):  # with its length, and in chunks
        response = post(server, "resnet101", data=data)
        assert response.status_code == 413
        assert response.json()["type"] == "TooLarge"
        assert str(oversized - 1) in response.json()["message"]


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nbroken header\r\n\r\n",
        b"POST /predictions/resnet101 HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /predictions/resnet101 HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n"
        b"content-length: 2\r\n\r\nxx",
    ],
)
def test_what_is_not_http_ends_the_connection(server: Running, sent: bytes) -> None:
    address = urlsplit(server.config.inference)
    with socket.create_connection((address.hostname, address.port), TIMEOUT_S) as connection:
        connection.sendall(sent)
        received = b""
        while data := connection.recv(4096):
            received += data
    assert received.startswith(b"HTTP/1.1 400 ")


def test_a_sane_id_is_kept_and_logged(server: Running, jpeg: bytes) -> None:
    chosen = f"order-7.{uuid.uuid4().hex}"
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"x-request-id": chosen, "traceparent": trace}
    response = post(server, "resnet101", data=jpeg, headers=headers)
    assert response.headers["x-request-id"] == chosen
    wait_until(lambda: f"{chosen} ok" in worker_log(server))
    line = access(server, chosen)
    assert (line["model"], line["status"], line["error"]) == ("resnet101", 200, None)
    assert (line["weights"], line["client"]) == ("untrained", "127.0.0.1")
    assert line["traceparent"] == trace
    assert line["request_bytes"] == len(jpeg)
    assert line["response_bytes"] == len(response.content)
    assert line["total_ms"] >= line["handler_ms"] > 0
    assert line["queue_ms"].isdigit()


@pytest.mark.parametrize("chosen", [None, "a b", "x" * 129, "a\tb", "-", '"}', "é"])
def test_another_id_is_replaced(server: Running, chosen: str | None) -> None:
    headers = {} if chosen is None else {"x-request-id": chosen.encode()}
    response = post(server, "resnet101", data=b"x", headers=headers)
    made = response.headers["x-request-id"]
    assert str(uuid.UUID(made)) == made
    line = access(server, made)
    assert (line["status"], line["error"]) == (400, "BadImage")
    wait_until(lambda: f"{made} BadImage" in worker_log(server))


def test_what_the_gateway_tells_its_parts_no_client_can_say(server: Running) -> None:
    headers = {
        "x-gateway-client": "admin",
        "x-gateway-model": "cyclegan",
        "x-gateway-request-id": "forged",
        "x-gateway-queue-ms": "9",
        "x-forwarded-for": "203.0.113.9",
        "x-envoy-upstream-rq-timeout-ms": "1",
    }
    response = post(server, "resnet101", data=b"x", headers=headers)
    assert response.status_code == 400
    line = access(server, response.headers["x-request-id"])
    assert (line["client"], line["address"]) == ("127.0.0.1", "127.0.0.1")
    assert line["model"] == "resnet101"


def test_a_query_string_is_refused(server: Running, jpeg: bytes) -> None:
    response = post(server, "resnet101?top_k=1", data=jpeg)
    assert (response.status_code, response.json()["type"]) == (400, "BadRequest")
    assert response.json()["message"].endswith("send top_k as the header x-top-k")
    assert access(server, response.headers["x-request-id"])["error"] == "BadRequest"


WEB_FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_a_picture_that_curl_announces_as_a_web_form_is_a_picture(
    server: Running, jpeg: bytes
) -> None:
    """curl does with --data-binary."""
    assert post(server, "resnet101", data=jpeg, headers=WEB_FORM).status_code == 200


def test_no_log_has_content(server: Running) -> None:
    """TorchServe quotes a form that it cannot parse in its error."""
    marker = uuid.uuid4().hex
    part = "--b\r\nContent-Disposition: form-data; name=data\r\nContent-Type: text/plain; charset="
    multipart = {"content-type": "multipart/form-data; boundary=b"}
    asked: list[tuple[dict[str, Any], int]] = [
        ({"data": marker}, 400),
        ({"data": f"\xff\xd8\xff{marker}".encode("latin-1")}, 400),
        ({"data": f"%zz{marker}", "headers": WEB_FORM}, 400),
        ({"data": f"{part}{marker}\r\n\r\n{marker}\r\n--b--\r\n", "headers": multipart}, 500),
        ({"data": f"--b\r\n{marker}", "headers": multipart}, 400),
        ({"files": {marker: marker}}, 400),
        ({"json": {"data": marker, marker: marker}}, 400),
        ({"data": f'{{"data": "{marker}'}, 400),
    ]
    for request, status in asked:
        response = post(server, "resnet101", **request)
        assert response.status_code == status, response.text
        if request.get("headers") != multipart:
            access(server, response.headers["x-request-id"])
    post(server, f"resnet101?{marker}", data=b"x")
    with pytest.raises(grpc.RpcError):
        predict(server, "resnet101", data=marker.encode(), other=marker.encode())
    access(server, post(server, "resnet101", data=b"x").headers["x-request-id"])
    logs = [path for path in server.run.path.rglob("*") if path.suffix == ".log"]
    assert {"ts_log.log", "model_log.log", "access.log", "serve.log"} <= {p.name for p in logs}
    assert "ErrorDataDecoderException" in (server.run.logs / "ts_log.log").read_text()
    assert [path.name for path in logs if marker.encode() in path.read_bytes()] == []


def test_an_expectation_is_met(server: Running, jpeg: bytes) -> None:
    """curl sends it with large uploads."""
    response = post(server, "resnet101", data=jpeg, headers={"expect": "100-continue"})
    assert response.status_code == 200


def test_the_port_of_grpc_serves_rest_too(server: Running) -> None:
    with httpx.Client(http1=True, timeout=TIMEOUT_S) as client:
        answer = client.get(f"http://{server.config.grpc}/livez")
    assert answer.json() == {"live": True}


def test_a_session_is_kept(server: Running, jpeg: bytes) -> None:
    """An error of a handler does not cost the client its connection."""
    with requests.Session() as session:
        for data in (jpeg, b"x", jpeg):
            response = session.post(server.url("resnet101"), data=data, timeout=TIMEOUT_S)
            assert "close" not in response.headers.get("connection", "")
