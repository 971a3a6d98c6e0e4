"""What the client does with a gateway: retries, deadlines, keys, models and their readiness."""

from __future__ import annotations

import dataclasses
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from tests.client.conftest import (
    OVER_GRPC,
    OVER_HTTP,
    PREDICTIONS,
    Authority,
    Kind,
    forwarder,
    vision,
)
from tests.standin import CLASSIFIER, MODELS, TRANSLATOR, Answer, Answering, AnsweringRpc
from vision_client import ConnectionFailed, Model, ServerError, TimedOut
from vision_client.models import MISSING

pytestmark = pytest.mark.slow

PICTURE = b"\x89PNG and more"


def error(code: int, type: str, **headers: bytes) -> Answer:
    body = json.dumps({"code": code, "type": type, "message": "no"}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(code, named, body)


@dataclass(frozen=True)
class Standin:
    """One of the two, for the transport of ``kind``."""

    kind: Kind
    server: Answering | AnsweringRpc

    @property
    def url(self) -> str:
        return self.server.url


@pytest.fixture
def standin(kind: Kind) -> Iterator[Standin]:
    if kind.scheme == "grpc":
        with AnsweringRpc(PREDICTIONS).listening() as rpc:
            yield Standin(kind, rpc)
    else:
        with Answering.started(body=PREDICTIONS) as rest:
            yield Standin(kind, rest)


@pytest.mark.parametrize(("code", "type"), [(429, "TooManyRequests"), (503, "Overloaded")])
def test_a_busy_server_is_asked_again(standin: Standin, code: int, type: str) -> None:
    standin.server.first = [error(code, type)]
    assert standin.kind.make(standin.url).classify(b"x", model="mine").best.label == "cat"
    assert len(standin.server.asked) == 2


@pytest.mark.parametrize("code", [401, 404])
def test_other_errors_are_final(standin: Standin, code: int) -> None:
    standin.server.first = [error(code, "No")]
    with pytest.raises(ServerError, match=f"{code} No: no"):
        standin.kind.make(standin.url).classify(b"x", model="mine")
    assert len(standin.server.asked) == 1


def test_retry_after(standin: Standin) -> None:
    standin.server.first = [error(429, "TooManyRequests", retry_after=b"7")]
    with pytest.raises(ServerError, match="429 TooManyRequests: no") as caught:
        standin.kind.make(standin.url, retries=0).classify(b"x", model="mine")
    assert caught.value.retry_after == 7


def test_the_server_gives_up(standin: Standin) -> None:
    standin.server.first = [error(504, "DeadlineExceeded")]
    with pytest.raises(TimedOut):
        standin.kind.make(standin.url).classify(b"x", model="mine")


@OVER_HTTP
def test_a_proxy_that_gives_up_is_an_error_of_the_server(kind: Kind) -> None:
    with Answering.started(504) as proxy, pytest.raises(ServerError, match="504 GatewayTimeout"):
        kind.make(proxy.url).classify(b"x", model="mine")


def test_the_server_is_told_the_timeout(standin: Standin) -> None:
    standin.kind.make(standin.url, timeout=20.0004).classify(b"x", model="mine")
    if isinstance(standin.server, Answering):
        assert standin.server.asked[0]["x-timeout-ms"] == "20001"
    else:
        assert 0 < standin.server.remaining[0] <= 20.1


def test_the_key(standin: Standin) -> None:
    standin.kind.make(standin.url, token="secret").classify(b"x", model="mine")
    assert dict(standin.server.asked[0].items())["authorization"] == "Bearer secret"


def test_a_key_per_request(standin: Standin) -> None:
    keys = iter(["first", "second"])
    client = standin.kind.make(standin.url, token=lambda: next(keys))
    for _ in range(2):
        client.classify(b"x", model="mine")
    sent = [dict(asked.items())["authorization"] for asked in standin.server.asked]
    assert sent == ["Bearer first", "Bearer second"]


@OVER_HTTP
def test_the_default_model_is_the_first_of_its_task(kind: Kind) -> None:
    with Answering.started(body=PREDICTIONS) as server:
        server.models = (*MODELS[1:], Model("vit_b_16", False, "classify", "mine"), *MODELS)
        client = kind.make(server.url)
        for _ in range(3):
            client.classify(b"x")
        server.answer = Answer(body=PICTURE)
        client.translate(b"x")
    assert server.paths == ["/predictions/vit_b_16"] * 3 + [f"/predictions/{TRANSLATOR}"]
    assert server.gets == ["/models", "/models"]  # once for each task


@OVER_HTTP
def test_a_default_model_that_has_gone_is_looked_up_again(kind: Kind) -> None:
    with Answering.started(body=PREDICTIONS) as server:
        client = kind.make(server.url)
        client.classify(b"x")
        server.models = (Model("vit_b_16", True, "classify", "mine"),)
        server.first = [error(404, "ModelNotFound")]
        client.classify(b"x")
        server.first = [error(404, "ModelNotFound")] * 2
        with pytest.raises(ServerError, match="404 ModelNotFound"):
            client.classify(b"x")
    assert server.paths == [
        f"/predictions/{name}" for name in (CLASSIFIER, CLASSIFIER, *["vit_b_16"] * 3)
    ]


@OVER_HTTP
def test_no_model_of_the_task(kind: Kind) -> None:
    with Answering.started() as server:
        server.models = MODELS[:1]
        with pytest.raises(ServerError, match=r"404 ModelNotFound: .* translate; .*: resnet101"):
            kind.make(server.url).translate(b"x")


@OVER_HTTP
def test_a_server_without_a_gateway(kind: Kind) -> None:
    with Answering.started(404, body=b'{"code": 404, "type": "Any", "message": "?"}') as server:
        server.models = None
        client = kind.make(server.url)
        for ask in (lambda: client.classify(b"x"), client.models, client.status):
            with pytest.raises(ServerError, match="requests have to name one"):
                ask()


@OVER_GRPC
def test_over_grpc_requests_name_a_model(standin: Standin) -> None:
    client = standin.kind.make(standin.url)
    for ask in (lambda: client.classify(b"x"), client.models):
        with pytest.raises(ValueError, match="name the model"):
            ask()
    assert standin.server.asked == []


@OVER_HTTP
def test_models(kind: Kind) -> None:
    with Answering.started() as server:
        assert kind.make(server.url).models() == MODELS


UNREADY = dataclasses.replace(MODELS[1], ready=False, reason="0 of 1 workers")


@OVER_HTTP
def test_status(kind: Kind) -> None:
    with Answering.started() as server:
        client = kind.make(server.url, retries=0)
        assert client.status() == MODELS
        server.models = (MODELS[0], UNREADY)
        assert client.status() == (MODELS[0], UNREADY)
        missing = Model("vit_b_16", False, reason=MISSING)
        assert client.status(TRANSLATOR, "vit_b_16") == (UNREADY, missing)
        server.draining = True
        assert {(one.ready, one.reason) for one in client.status()} == {(False, "draining")}


@OVER_HTTP
@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b'{"models": 1}', b'{"models": [1]}', b'{"models": [{"name": "a"}]}',
     b'{"models": [{"name": "a", "ready": true, "task": "classify", "weights": "b"}]}'],
)  # fmt: skip
def test_malformed_status(kind: Kind, body: bytes) -> None:
    """The last is a list of models, but no readiness."""
    with Answering.started(body=body) as server:
        server.models = None
        with pytest.raises(ServerError, match="502 UnexpectedAnswer: not "):
            kind.make(server.url).status()


@OVER_GRPC
def test_status_over_grpc(standin: Standin) -> None:
    assert isinstance(standin.server, AnsweringRpc)
    health, states = standin.server.health, HealthCheckResponse
    health.set("", states.NOT_SERVING)
    health.set(CLASSIFIER, states.SERVING)
    client = standin.kind.make(standin.url)
    assert client.status() == (Model("", False),)
    assert client.status(CLASSIFIER, "vit_b_16") == (
        Model(CLASSIFIER, True),
        Model("vit_b_16", False, reason=MISSING),
    )


def test_the_command_over_grpc(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"x")
    with AnsweringRpc(PREDICTIONS).listening() as server:
        server.health.set("", HealthCheckResponse.SERVING)
        here = {"VISION_SERVER": server.url, "COLUMNS": "200"}
        named = vision("classify", photo, "--model", "mine", **here)
        nameless = vision("classify", photo, **here)
        page = vision("page", "--classify", "mine", **here)
        status = vision("status", **here)
    assert named.returncode == 0
    assert named.stdout.startswith(f"{photo}\t1\t1\tcat\t")
    assert (nameless.returncode, page.returncode) == (2, 2)
    assert "--model" in nameless.stderr
    assert "over gRPC the server does not list its models" in nameless.stderr
    assert "--translate" in page.stderr
    assert "--classify" not in page.stderr
    assert (status.returncode, status.stdout) == (0, f"server     ready\nat         {server.url}\n")


def test_the_status_command() -> None:
    with Answering.started() as server:
        good = vision("status", VISION_SERVER=server.url)
        server.models = (MODELS[0], UNREADY)
        bad = vision("status", VISION_SERVER=server.url)
        one = vision("status", CLASSIFIER, VISION_SERVER=server.url)
    meaningless = "weights untrained: the answers mean nothing"
    ready = f"resnet101  ready, {meaningless}\n"
    at = f"at         {server.url}\n"
    assert (good.returncode, good.stdout) == (0, f"{ready}cyclegan   ready, {meaningless}\n{at}")
    unready = f"cyclegan   not ready: 0 of 1 workers, {meaningless}\n"
    assert (bad.returncode, bad.stdout) == (1, f"{ready}{unready}{at}")
    assert (one.returncode, one.stdout) == (0, f"{ready}{at}")


def test_a_wrong_key_ends_the_command(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "key").write_text("secret\n")
    with Answering.started(body=PREDICTIONS) as server:
        here = {"VISION_SERVER": server.url}
        good = vision("classify", tmp_path, "--token-file", tmp_path / "key", **here)
        server.answer = error(401, "Unauthorized")
        bad = vision("classify", tmp_path, "-j", "1", **here, VISION_TOKEN="other")
    assert good.returncode == 0
    assert bad.returncode == 1
    assert "401 Unauthorized: no (--token-file FILE, or VISION_TOKEN)" in bad.stderr
    assert "1 not tried" in bad.stderr
    sent = [headers["authorization"] for headers in server.asked]
    assert set(sent[:2]) == {"Bearer secret"}
    assert set(sent[2:]) == {"Bearer other"}


def test_a_client_certificate(standin: Standin, authority: Authority) -> None:
    kind = standin.kind
    tls = authority.context(kind.scheme)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(authority.ca)
    with forwarder(standin.url.rpartition("/")[2], tls) as front:
        url = f"{kind.scheme}s://127.0.0.1:{front.port}"
        known = kind.make(url, ca=authority.ca, cert=(authority.ca, authority.key))
        assert known.classify(b"x", model="mine").predictions
        with pytest.raises(ConnectionFailed):
            kind.make(url, ca=authority.ca).classify(b"x", model="mine")


def test_the_commands_certificate(tmp_path: Path, authority: Authority) -> None:
    """Given by options and by the environment."""
    tls = authority.context("http")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(authority.ca)
    with Answering.started() as server, forwarder(server.url.rpartition("/")[2], tls) as front:
        here = {"VISION_SERVER": f"https://127.0.0.1:{front.port}"}
        options = ("--ca", authority.ca, "--cert", authority.ca, "--cert-key", authority.key)
        files = map(str, options[1::2])
        set_ = dict(zip(("VISION_CA", "VISION_CERT", "VISION_CERT_KEY"), files, strict=True))
        assert vision("status", *options, **here).returncode == 0
        assert vision("status", **here, **set_).returncode == 0
        assert vision("status", *options[:2], **here).returncode == 1
    half = vision("status", *options[:4], **here)
    assert half.returncode == 2
    assert "--cert and --cert-key belong together" in half.stderr


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_certificate(kind: Kind, authority: Authority, missing: int) -> None:
    files: list[Path] = [authority.ca, authority.key]
    files[missing] = Path("nowhere.pem")
    url, cert = f"{kind.scheme}s://127.0.0.1:9", (files[0], files[1])
    with pytest.raises(OSError, match=r"nowhere\.pem"):
        kind.make(url, cert=cert).classify(b"x", model="mine")
