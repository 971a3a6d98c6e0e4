"""HTTP requests become calls, whatever their form."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import pytest
from requests import Request as Prepared
from starlette.requests import Request

from deploy.ray import rest
from deploy.ray.messages import Call
from serving.refusals import Refused

PICTURE = bytes(range(256)) * 8
LIMIT = 10_000


def request(body: Iterable[bytes], headers: dict[str, str]) -> Request:
    """An HTTP request whose body arrives in these pieces."""
    pieces = list(body)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": pairs}, receive)


def read(body: Iterable[bytes], **headers: str) -> Call:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.run(rest.read_call(request(body, names), "id", LIMIT))


def form(**parts: Any) -> Call:
    prepared = Prepared("POST", "http://server", files=parts).prepare()
    assert isinstance(prepared.body, bytes)
    return read([prepared.body], content_type=prepared.headers["content-type"])


def test_a_raw_body_is_one_piece() -> None:
    call = read([PICTURE[:100], PICTURE[100:]], content_type="image/png", x_top_k="3")
    assert (call.body, call.fields, call.headers["x-top-k"]) == (PICTURE, {}, "3")


def test_the_type_that_curl_sends_by_default_is_a_raw_body() -> None:
    call = read([PICTURE], content_type="application/x-www-form-urlencoded; charset=utf-8")
    assert call.body == PICTURE
    assert call.headers["content-type"] == "application/octet-stream"


def test_a_form_has_its_values_as_bytes() -> None:
    call = form(data=("photo.png", PICTURE, "image/png"), top_k=(None, "3"))
    assert (call.body, dict(call.fields)) == (None, {"data": PICTURE, "top_k": b"3"})


def test_a_form_field_without_a_file_name_may_have_any_bytes() -> None:
    assert form(data=(None, PICTURE)).fields["data"] == PICTURE


def test_a_form_keeps_the_last_of_a_repeated_name() -> None:
    parts = [("size", (None, b"64")), ("size", (None, b"128"))]
    prepared = Prepared("POST", "http://server", files=parts).prepare()
    assert isinstance(prepared.body, bytes)
    call = read([prepared.body], content_type=prepared.headers["content-type"])
    assert call.fields == {"size": b"128"}


@pytest.mark.parametrize(
    ("body", "boundary"),
    [
        (b"not a form", "; boundary=x"),
        (b"", ""),
        (b"--x\r\ncontent-disposition: form-data; name=data\r\n\r\ncut off", "; boundary=x"),
        (b"--x\r\nno header\r\n\r\nvalue\r\n--x--\r\n", "; boundary=x"),
    ],
)
def test_a_broken_form_is_refused(body: bytes, boundary: str) -> None:
    with pytest.raises(Refused, match="form") as refused:
        read([body], content_type=f"multipart/form-data{boundary}")
    assert (refused.value.code, refused.value.type) == (400, "BadRequest")


def test_a_form_of_many_fields_is_refused_before_it_is_parsed_to_its_end() -> None:
    part = b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\nv\r\n"
    with pytest.raises(Refused, match="100 fields"):
        read([part * 102 + b"cut off"], content_type="multipart/form-data; boundary=x")


@pytest.mark.parametrize("headers", [{}, {"content_length": str(LIMIT + 1)}])
def test_a_body_over_the_limit_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Refused, match=str(LIMIT)) as refused:
        read([bytes(LIMIT), b"x"], **headers)
    assert (refused.value.code, refused.value.type) == (413, "TooLarge")


@pytest.mark.parametrize("text", ["0", "-5", "1.5", "86400001", "999999999999", "5s"])
def test_a_wrong_timeout_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        rest.timeout_of({"x-timeout-ms": text})
    assert (refused.value.code, refused.value.type) == (422, "InvalidOption")


def test_a_timeout_is_in_milliseconds() -> None:
    assert rest.timeout_of({"x-timeout-ms": "1500"}) == 1.5
    assert rest.timeout_of({}) is None
    assert rest.timeout_of({"x-timeout-ms": ""}) is None


@pytest.mark.parametrize("unsafe", ["", "a b", "x" * 129, "naïve", "a\nb"])
def test_an_unsafe_id_is_replaced(unsafe: str) -> None:
    assert rest.request_id({"x-request-id": unsafe}) != unsafe
    assert rest.request_id({"x-request-id": "job-7.a"}) == "job-7.a"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/predictions/resnet101", "/predictions/resnet101"),
        (b"//predictions//resnet101", "/predictions/resnet101"),
        (b"/predictions/resnet101/../../models", "/models"),
        (b"/predictions/%2e%2e/models", "/models"),
        (b"/predictions/", "/predictions/"),
        (b"/", "/"),
    ],
)
def test_paths_are_those_that_the_gateway_sees(raw: bytes, path: str) -> None:
    scope = {"type": "http", "path": unquote(raw.decode()), "raw_path": raw}
    assert rest.path_of(Request(scope)) == path


@pytest.mark.parametrize("raw", [b"/predictions%2fresnet101", b"/predictions/resnet101%5C.."])
def test_an_escaped_slash_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused, match="escaped slash"):
        rest.path_of(Request({"type": "http", "path": "/", "raw_path": raw}))
