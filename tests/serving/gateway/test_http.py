"""The gateway over HTTP: routes, sizes, ids, errors, the access log."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest

from tests.routes import post, predict
from tests.running import Running, wait_until
from tests.serving.gateway.logs import access

TIMEOUT_S = 30


def test_a_sane_id_is_kept_and_logged(server: Running, jpeg: bytes) -> None:
    chosen = f"order-7.{uuid.uuid4().hex}"
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"x-request-id": chosen, "traceparent": trace}
    response = post(server, "resnet101", data=jpeg, headers=headers)
    assert response.headers["x-request-id"] == chosen
    wait_until(lambda: f"{chosen} ok" in server.log())
    line = access(server, chosen)
    assert (line["model"], line["status"], line["error"]) == ("resnet101", 200, None)
    assert (line["weights"], line["client"]) == ("untrained", "127.0.0.1")
    assert line["traceparent"] == trace
    assert line["request_bytes"] == len(jpeg)
    assert line["response_bytes"] == len(response.content)
    assert line["total_ms"] >= line["handler_ms"] > 0
    assert line["queue_ms"].isdigit()


@pytest.mark.parametrize(
    ("model", "error"), [("resnet101", "BadImage"), ("resnet101?top_k=1", "BadRequest")]
)
def test_an_error_is_in_the_access_log(server: Running, model: str, error: str) -> None:
    line = access(server, post(server, model, data=b"x").headers["x-request-id"])
    assert (line["status"], line["error"]) == (400, error)


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


WEB_FORM = {"content-type": "application/x-www-form-urlencoded"}


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
