"""Bytes on the wire that no HTTP library sends, and multipart forms that no browser sends."""

from __future__ import annotations

import contextlib
import json
import socket
from urllib.parse import urlsplit

import psutil
import pytest

from tests.routes import TIMEOUT_S, Server, post

pytestmark = pytest.mark.usefixtures("same_workers")


def exchange(served: Server, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send ``data`` as it is; return status, headers by lower-case name, and body."""
    address = urlsplit(served.rest)
    with socket.create_connection((address.hostname, address.port), TIMEOUT_S) as connection:
        connection.sendall(data)
        reader = connection.makefile("rb")
        code = int(reader.readline().split()[1])
        headers = {}
        while line := reader.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return code, headers, reader.read(int(headers["content-length"]))


def head(*lines: bytes, version: bytes = b"1.1", length: int) -> bytes:
    request = b"POST /predictions/resnet101 HTTP/" + version
    return b"\r\n".join([request, *lines, b"content-length: %d" % length, b"", b""])


@pytest.mark.parametrize(
    ("lines", "version"),
    [
        ([], b"1.0"),  # without Host
        ([b"host: h", b"x-top-k: 2"], b"1.0"),
        ([b"hOsT: h", b"X-ToP-K: 2", b"ACCEPT: application/JSON"], b"1.1"),
        ([b"host: h", b"x-note: caf\xe9 \xff\xfe"], b"1.1"),
        ([b"host: h", b"x-large: " + b"a" * 7000], b"1.1"),
        ([b"host: h", b"x-folded: a", b" b"], b"1.1"),
        ([b"host: h", b"ts_stream_next: true", b"x-model-weights: mine"], b"1.1"),
        # TorchServe adds these to StreamPredictions2, whose answers it drops.
        ([b"host: h", b"ts_request_sequence_id: x", b"ts_request_sequence_start: true"], b"1.1"),
        ([b"host: h", b"content-type: application/json"], b"1.1"),
        ([b"host: h", b"content-type: text/plain; charset=nonsense"], b"1.1"),
        ([b"host: h", b"content-type: "], b"1.1"),
        ([b"host: h", b"content-type: \xff\xff"], b"1.1"),
    ],
)
def test_odd_headers_are_accepted(
    served: Server, jpeg: bytes, lines: list[bytes], version: bytes
) -> None:
    request = head(*lines, version=version, length=len(jpeg)) + jpeg
    code, headers, body = exchange(served, request)
    assert code == 200, body
    assert headers["x-model-weights"] == "untrained"
    assert "ts_stream_next" not in headers
    top_2 = any(line.lower().startswith(b"x-top-k") for line in lines)
    assert len(json.loads(body)["predictions"]) == (2 if top_2 else 5)


@pytest.mark.parametrize(
    "request_",
    [
        head(b"host: h", b"x-huge: " + b"a" * 100_000, length=1) + b"x",
        head(b"host: h", *(b"x-%d: 1" % i for i in range(2000)), length=1) + b"x",
        b"POST /" + b"a" * 10_000 + b" HTTP/1.1\r\nhost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS to a plain port
        head(b"host: h", b"x-\xe4: 1", length=1) + b"x",
    ],
    ids=["a huge header", "many headers", "a long path", "TLS", "an odd name"],
)
def test_invalid_http_is_refused(served: Server, request_: bytes) -> None:
    code, _, body = exchange(served, request_)
    assert 400 <= code < 500
    assert b"/work" not in body
    assert b"Traceback" not in body


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
def test_what_is_not_http_ends_the_connection(served: Server, sent: bytes) -> None:
    address = urlsplit(served.rest)
    received = b""
    with (
        socket.create_connection((address.hostname, address.port), TIMEOUT_S) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(sent)
        while data := connection.recv(4096):
            received += data
    assert received.startswith(b"HTTP/1.1 400 ")


def test_bodies_may_be_chunked(served: Server, jpeg: bytes) -> None:
    chunks = (jpeg[i : i + 1000] for i in range(0, len(jpeg), 1000))
    assert post(served, "resnet101", data=chunks).status_code == 200


def part(name: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="%s"' % name


@pytest.mark.parametrize(
    ("case", "name", "value", "code", "kind"),
    [
        ("a folded name", b"no\r\n_te", b"3", 200, ""),
        ("a folded option", b"top\r\n_k", b"3", 422, "InvalidOption"),  # TorchServe passes top
        ("an empty line in a name", b"a\r\n\r\nb", b"3", 200, ""),
        ("a name that is no UTF-8", b"\xff\xfe", b"3", 200, ""),
        ("describe", b"describe", b"true", 200, ""),
        ("host", b"host", b"h", 200, ""),
        ("out of range", b"top_k", b"0", 422, "InvalidOption"),
        ("no UTF-8", b"top_k", b"\xff", 422, "InvalidOption"),
        ("empty", b"top_k", b"", 422, "InvalidOption"),
        ("another picture", b"other", b"\x89PNG\r\n\x1a\n", 400, "BadRequest"),
        ("the picture twice", b"data", b"JPEG", 400, "BadRequest"),
    ],
)
def test_odd_forms(
    served: Server, jpeg: bytes, case: str, name: bytes, value: bytes, code: int, kind: str
) -> None:
    """A form of the picture and one more field."""
    parts = ((part(b"data"), jpeg), (part(name), jpeg if value == b"JPEG" else value))
    body = b"".join(b"--b\r\n%s\r\n\r\n%s\r\n" % pair for pair in parts) + b"--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = post(served, "resnet101", data=body, headers=headers)
    found = (answer.status_code, answer.json().get("type", ""))
    assert found == served.expected(case, (code, kind)), answer.text


@pytest.mark.parametrize(
    "body",
    [b"[" * 2**22, b'{"a":' * 2**20, b"[[]" + b",[]" * 2**22],
    ids=["deep lists", "deep objects", "many lists"],
)
def test_megabytes_of_json_are_refused(served: Server, body: bytes) -> None:
    answer = post(served, "resnet101", data=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequest")
    assert "more than 100 values" in answer.json()["message"]
    (worker,) = served.workers("resnet101")
    assert psutil.Process(worker).memory_info().rss < 2 * 2**30, "it was parsed"
