"""Where the picture is, in every form that TorchServe hands a request over."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest

from handlers.errors import BadRequest, EmptyBody, TooLarge
from handlers.pictures.limits import Limits
from handlers.torchserve import header_values, is_grpc
from tests.handlers.uploads import parse

# Bytes whose base64 has both letters that differ in the URL-safe alphabet, and padding.
PICTURE = b"\xff\xd8\xff\xfb\xef\xbe" + bytes(range(256))
BASE64 = base64.b64encode(PICTURE).decode()
URL_SAFE = base64.urlsafe_b64encode(PICTURE).decode()


def document(data: object, **options: object) -> bytes:
    return json.dumps({"data": data, **options}).encode()


def test_the_example_is_worth_its_name() -> None:
    assert BASE64.endswith("==")
    assert BASE64 != URL_SAFE


@pytest.mark.parametrize(
    "row",
    [
        {"body": PICTURE},
        {"body": bytearray(PICTURE)},
        {"data": PICTURE},
        {"data": bytearray(PICTURE)},
        {"data": PICTURE, "top_k": b"3"},
        {"body": {"data": BASE64}},
        {"body": document(BASE64)},
        {"body": bytearray(document(BASE64))},
        {"body": b" \r\n\t" + document(BASE64)},
    ],
    ids=[
        "raw", "raw bytearray", "field", "field bytearray", "field and option", "parsed JSON",
        "JSON bytes", "JSON bytearray", "JSON after whitespace",
    ],
)  # fmt: skip
def test_every_form_gives_the_same_picture(row: Mapping[str, Any]) -> None:
    request = parse(row, {"Host": "localhost"})
    assert request.picture == PICTURE
    assert isinstance(request.picture, bytes)


@pytest.mark.parametrize("row", [{"body": "<svg ä/>"}, {"data": "<svg ä/>"}], ids=["body", "field"])
def test_text_that_torchserve_decoded_is_taken_as_its_bytes(row: Mapping[str, Any]) -> None:
    assert parse(row, {}).picture == "<svg ä/>".encode()


@pytest.mark.parametrize(
    "text",
    [
        BASE64,
        URL_SAFE,
        BASE64.rstrip("="),
        URL_SAFE.rstrip("="),
        f"data:image/jpeg;base64,{BASE64}",
        f"data:;base64,{URL_SAFE}",
        f"data:image/png;name=a.png;base64,{BASE64}",
        "\r\n".join(BASE64[i : i + 76] for i in range(0, len(BASE64), 76)),
        f"  {BASE64}\n",
    ],
    ids=[
        "plain", "URL-safe", "no padding", "URL-safe, no padding", "data URI", "bare data URI",
        "data URI with parameters", "lines of 76", "around",
    ],
)  # fmt: skip
def test_base64_as_people_send_it(text: str) -> None:
    assert parse({"body": {"data": text}}, {}).picture == PICTURE


@pytest.mark.parametrize(
    "text",
    ["!!!!", "QUJD*A==", "A", "QUJDR", "QQ==QQ==", "ÄÖÜß", "data:image/png,QUJD", "\0\0\0\0"],
)
def test_broken_base64_is_a_bad_request(text: str) -> None:
    with pytest.raises(BadRequest, match="base64"):
        parse({"body": {"data": text}}, {})


@pytest.mark.parametrize("data", [5, 1.5, True, ["QUJD"], {"b64": "QUJD"}])
def test_data_of_another_type_is_a_bad_request(data: object) -> None:
    with pytest.raises(BadRequest, match='"data" must be one string'):
        parse({"body": {"data": data}}, {})


@pytest.mark.parametrize("body", [[1, 2], [], 5, 0, 1.5, True, False])
def test_json_that_is_no_object_is_a_bad_request(body: object) -> None:
    with pytest.raises(BadRequest, match="must be an object"):
        parse({"body": body}, {})


@pytest.mark.parametrize("body", [b'["QUJD"]', b'""', '["QUJD"]', '"QUJD"'])
def test_json_text_that_is_no_object_is_a_bad_request(body: bytes | str) -> None:
    with pytest.raises(BadRequest, match="must be an object"):
        parse({"body": body}, {})


def test_json_sent_as_text_is_json() -> None:
    """TorchServe hands over a body of type text/plain as str."""
    assert parse({"body": '{"data": "QUJD", "top_k": 2}'}, {}).picture == b"ABC"


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": ',
        b"{'data': 'QUJD'}",
        b'{"data": "\xff\xfe"}',
        b'{"data":' + b"[" * 200_000,
        b"[" * 200_000,
        b'{"data": "QUJD", "top_k": ' + b"9" * 10_000 + b"}",
    ],
    ids=["cut", "quotes", "not UTF-8", "deep", "deep list", "number of 10,000 digits"],
)
def test_broken_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest, match="JSON"):
        parse({"body": body}, {})


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"body": b""},
        {"body": ""},
        {"body": None},
        {"data": b""},
        {"data": None},
        {"top_k": b"3"},
        {"body": {}},
        {"body": {"data": None}},
        {"body": {"data": ""}},
        {"body": {"data": "data:image/png;base64,"}},
        {"body": {"image": BASE64}},
        {"body": b"{}"},
    ],
    ids=str,
)
def test_no_picture_is_an_empty_body(row: Mapping[str, Any]) -> None:
    with pytest.raises(EmptyBody):
        parse(row, {})


PNG = b"\x89PNG\r\n\x1a\n the rest"
REST = {"Host": "h", "Content-Type": "application/json"}


def as_json(**fields: object) -> dict[str, bytes]:
    return {"body": json.dumps(fields).encode()}


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "row",
    [
        {"data": PNG, "data2": PNG},
        {"data": PNG, "mask": b"\xff\xd8\xff\xe0 a JPEG"},
        {"data": PNG, "other": b"%PDF-1.7"},
        as_json(data=base64_of(PNG), other=base64_of(PNG)),
        as_json(data=base64_of(PNG), other="data:image/png;base64," + base64_of(PNG)),
    ],
)
def test_a_second_picture_is_refused(row: dict[str, bytes]) -> None:
    with pytest.raises(BadRequest, match="several pictures"):
        parse(row, {"Host": "h"})


def test_several_pictures_in_a_list_are_refused() -> None:
    with pytest.raises(BadRequest, match="base64 of one picture"):
        parse(as_json(data=[base64_of(PNG)] * 2), REST)


def test_other_fields_are_no_pictures() -> None:
    request = parse({"data": PNG, "note": b"a horse", "copy": b"yes" * 1000}, {"Host": "h"})
    assert request.picture == PNG


@pytest.mark.parametrize("lost", [1, 3])
def test_a_form_that_had_more_fields_than_arrived_is_refused(lost: int) -> None:
    """TorchServe hands over the last field of a name; the request's length tells of the others."""
    picture, part = PNG * 400, 300
    headers = {"Host": "h", "content-type": "multipart/form-data; boundary=b"}
    whole = {**headers, "content-length": str(len(picture) + part)}
    assert parse({"data": picture, "top_k": b"3"}, whole).picture == picture
    double = {**headers, "content-length": str((len(picture) + part) * (1 + lost))}
    with pytest.raises(BadRequest, match="more than once"):
        parse({"data": picture, "top_k": b"3"}, double)


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(BadRequest, match="more than once"):
        parse({"body": b'{"data": "AAAA", "top_k": 3, "top_k": 4}'}, REST)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1000,
        b'{"a":' * 99,
        b"[" + b"[]," * 1000 + b"0]",
        b'{"data": NaN}',
        b'{"x": -Infinity}',
    ],
)
def test_json_that_costs_or_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="JSON"):
        parse({"body": body}, REST)


def test_megabytes_of_brackets_cost_no_memory() -> None:
    tracemalloc.start()
    with pytest.raises(BadRequest, match="more than 100 values"):
        parse({"body": b"[[]" + b",[]" * 2**22}, REST)
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "of",
    [
        lambda fields: ({"data": PNG, **fields}, {"Host": "h"}),
        lambda fields: (
            {"data": PNG, **fields},
            {key: {"content-type": "text/plain"} for key in ["data", *fields]},
        ),
        lambda fields: ({"body": {"data": base64_of(PNG), **fields}}, {"Host": "h"}),
    ],
    ids=["form", "gRPC", "parsed JSON"],
)
def test_fields_are_counted_before_they_are_looked_at(of: Any) -> None:
    assert parse(*of({f"x{i}": b"1" for i in range(99)})).picture == PNG
    row, headers = of({f"x{i}": b"1" * 100 for i in range(40_000)})
    tracemalloc.start()
    with pytest.raises(BadRequest, match="more than 100 fields"):
        parse(row, headers)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_data_uri_is_looked_for_at_the_beginning_only() -> None:
    begins = "data:;base64," + base64_of(PNG)
    with pytest.raises(BadRequest, match="several"):
        parse(as_json(data=base64_of(PNG), other=begins), REST)
    assert parse(as_json(data=base64_of(PNG), other="-" * 256 + begins), REST).picture == PNG


@pytest.mark.parametrize("body", [b"5", b"true", b"\xef\xbb\xbf[]"])
def test_json_by_its_type_is_json(body: bytes) -> None:
    with pytest.raises(BadRequest, match="must be an object"):
        parse({"body": body}, REST)


def test_a_picture_announced_as_json_is_a_picture() -> None:
    assert parse({"body": PNG}, REST).picture == PNG


def test_base64_is_measured_before_it_is_decoded() -> None:
    limits = Limits(request_bytes=300)
    assert parse(as_json(data=base64_of(bytes(300))), REST, limits).picture == bytes(300)
    for data in (base64_of(bytes(301)), base64_of(bytes(2**20))):
        with pytest.raises(TooLarge, match="more than 300 bytes"):
            parse(as_json(data=data), REST, limits)


def test_a_web_form_is_told_what_to_do() -> None:
    headers = {"Host": "h", "content-type": "application/x-www-form-urlencoded"}
    with pytest.raises(EmptyBody, match="content type announces a web form"):
        parse({"a": b"b"}, headers)


def test_who_calls_over_grpc() -> None:
    field = {"content-type": "application/octet-stream"}
    assert is_grpc(header_values({"data": field, "host": field}))
    assert is_grpc(header_values({"data": field, "ts_request_sequence_id": "ts-seq-1"}))
    assert not is_grpc({"url_path": "", "explain": "False"})  # HTTP/1.0 without Host
