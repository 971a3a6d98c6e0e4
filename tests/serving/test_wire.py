"""Bytes on the wire that no HTTP library would send, and forms that a browser would not."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
import requests

TIMEOUT_S = 60


def exchange(server: Any, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send ``data`` as it is; status, headers by lower-case name, body."""
    host, port = server.config.inference.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as client:
        client.sendall(data)
        reader = client.makefile("rb")
        code = int(reader.readline().split()[1])
        headers = {}
        while line := reader.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return code, headers, reader.read(int(headers["content-length"]))


def head(*lines: bytes, version: bytes = b"1.1", length: int | None = None) -> bytes:
    request = b"POST /predictions/resnet101 HTTP/" + version
    sized = [] if length is None else [b"content-length: %d" % length]
    return b"\r\n".join([request, *lines, *sized, b"", b""])


@pytest.fixture
def same_worker(server: Any) -> Any:
    before = [worker.pid for worker in server.management.workers("resnet101")]
    yield
    assert [worker.pid for worker in server.management.workers("resnet101")] == before


@pytest.mark.usefixtures("same_worker")
@pytest.mark.parametrize(
    ("lines", "version"),
    [
        ([], b"1.0"),  # without Host, as a gRPC request arrives
        ([b"host: h", b"x-top-k: 2"], b"1.0"),
        ([b"hOsT: h", b"X-ToP-K: 2", b"ACCEPT: application/JSON"], b"1.1"),
        ([b"host: h", b"x-note: caf\xe9 \xff\xfe"], b"1.1"),
        ([b"host: h", b"x-large: " + b"a" * 7000], b"1.1"),
        ([b"host: h", b"x-folded: a", b" b"], b"1.1"),
        ([b"host: h", b"ts_stream_next: true", b"x-model-weights: mine"], b"1.1"),
        ([b"host: h", b"content-type: application/json"], b"1.1"),
        ([b"host: h", b"content-type: text/plain; charset=nonsense"], b"1.1"),
        ([b"host: h", b"content-type: "], b"1.1"),
        ([b"host: h", b"content-type: \xff\xff"], b"1.1"),
    ],
)
def test_odd_headers_are_no_matter(
    server: Any, jpeg: bytes, lines: list[bytes], version: bytes
) -> None:
    request = head(*lines, version=version, length=len(jpeg)) + jpeg
    code, headers, body = exchange(server, request)
    assert code == 200, body
    assert headers["x-model-weights"] == "untrained"
    assert "ts_stream_next" not in headers
    asked_for_two = any(line.lower().startswith(b"x-top-k") for line in lines)
    assert len(json.loads(body)["predictions"]) == (2 if asked_for_two else 5)


@pytest.mark.usefixtures("same_worker")
@pytest.mark.parametrize(
    "request_",
    [
        head(b"host: h", b"x-huge: " + b"a" * 100_000, length=1) + b"x",
        head(b"host: h", *(b"x-%d: 1" % i for i in range(2000)), length=1) + b"x",
        b"POST /" + b"a" * 10_000 + b" HTTP/1.1\r\nhost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS to a plain port
        b"GARBAGE\r\n\r\n",
        head(b"host: h", b"x-\xe4: 1", length=1) + b"x",
    ],
    ids=["a huge header", "many headers", "a long path", "TLS", "no HTTP", "an odd name"],
)
def test_what_is_no_request_is_refused(server: Any, request_: bytes) -> None:
    code, _, body = exchange(server, request_)
    assert 400 <= code < 500
    assert b"/work" not in body
    assert b"Traceback" not in body


@pytest.mark.usefixtures("same_worker")
def test_bodies_may_be_chunked(server: Any, jpeg: bytes) -> None:
    chunks = (jpeg[i : i + 1000] for i in range(0, len(jpeg), 1000))
    answer = requests.post(server.url("resnet101"), data=chunks, timeout=TIMEOUT_S)
    assert answer.status_code == 200


def form(*parts: tuple[bytes, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form of parts with these headers, written by hand."""
    body = b"".join(b"--b\r\n%s\r\n\r\n%s\r\n" % part for part in parts) + b"--b--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=b"}


DATA = b'Content-Disposition: form-data; name="data"'


@pytest.mark.usefixtures("same_worker")
@pytest.mark.parametrize(
    ("more", "code", "kind"),
    [
        ((), 200, ""),
        (((b'Content-Disposition: form-data; name="top\r\n_k"', b"3"),), 200, ""),
        (((b'Content-Disposition: form-data; name="a\r\n\r\nb"', b"3"),), 200, ""),
        (((b'Content-Disposition: form-data; name="\xff\xfe"', b"3"),), 200, ""),
        (((b'Content-Disposition: form-data; name="top_k"', b"0"),), 422, "InvalidOption"),
        (((b'Content-Disposition: form-data; name="top_k"', b"\xff"),), 422, "InvalidOption"),
        (((b'Content-Disposition: form-data; name="top_k"', b""),), 422, "InvalidOption"),
        (((DATA.replace(b'"data"', b'"describe"'), b"true"),), 200, ""),
        (((DATA.replace(b'"data"', b'"host"'), b"h"),), 200, ""),
        (((DATA.replace(b'"data"', b'"other"'), b"\x89PNG\r\n\x1a\n"),), 400, "BadRequest"),
    ],
)
def test_odd_forms(
    server: Any, jpeg: bytes, more: tuple[tuple[bytes, bytes], ...], code: int, kind: str
) -> None:
    body, headers = form((DATA, jpeg), *more)
    answer = requests.post(server.url("resnet101"), data=body, headers=headers, timeout=TIMEOUT_S)
    found = answer.json()
    assert (answer.status_code, found.get("type", "")) == (code, kind), found


def test_a_picture_given_twice_is_refused(server: Any, jpeg: bytes) -> None:
    body, headers = form((DATA, jpeg), (DATA, jpeg))
    answer = requests.post(server.url("resnet101"), data=body, headers=headers, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequest")


@pytest.mark.usefixtures("same_worker")
@pytest.mark.parametrize("body", [b"[" * 2**22, b'{"a":' * 2**20, b"[[]" + b",[]" * 2**22])
def test_megabytes_of_json_are_refused(server: Any, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = requests.post(server.url("resnet101"), data=body, headers=headers, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequest")
    assert "more than 100 values" in answer.json()["message"]
    (worker,) = server.management.workers("resnet101")
    assert worker.rss < 2 * 2**30, "it was parsed"


def test_a_header_of_another_protocol_is_no_matter(server: Any, jpeg: bytes) -> None:
    """TorchServe adds such headers to calls of StreamPredictions2, whose answers are dropped."""
    headers = {"ts_request_sequence_id": "x", "ts_request_sequence_start": "true"}
    answer = requests.post(server.url("resnet101"), data=jpeg, headers=headers, timeout=TIMEOUT_S)
    assert answer.status_code == 200
