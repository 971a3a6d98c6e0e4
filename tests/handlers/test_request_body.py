"""The picture of a request, in every form in which TorchServe delivers it."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest

from handlers.errors import BadRequest, EmptyBody, TooLarge
from handlers.pictures.limits import Limits
from tests.handlers.support import REST, upload

# Its base64 has padding and both characters that differ in the URL-safe alphabet.
PICTURE = b"\xff\xd8\xff\xfb\xef\xbe" + bytes(range(256))
BASE64 = base64.b64encode(PICTURE).decode()
URL_SAFE = base64.urlsafe_b64encode(PICTURE).decode()
AS_JSON = {**REST, "Content-Type": "application/json"}


def document(data: object, **options: object) -> bytes:
    return json.dumps({"data": data, **options}).encode()


def test_the_example_has_padding_and_url_safe_characters() -> None:
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
    request = upload(row, REST)
    assert request.picture == PICTURE
    assert isinstance(request.picture, bytes)


@pytest.mark.parametrize("row", [{"body": "<svg ä/>"}, {"data": "<svg ä/>"}], ids=["body", "field"])
def test_text_that_torchserve_decoded_is_encoded_again(row: Mapping[str, Any]) -> None:
    assert upload(row, {}).picture == "<svg ä/>".encode()


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
def test_common_variants_of_base64(text: str) -> None:
    assert upload({"body": {"data": text}}, {}).picture == PICTURE


@pytest.mark.parametrize(
    "text",
    ["!!!!", "QUJD*A==", "A", "QUJDR", "QQ==QQ==", "ÄÖÜß", "data:image/png,QUJD", "\0\0\0\0"],
)
def test_broken_base64_is_a_bad_request(text: str) -> None:
    with pytest.raises(BadRequest, match="base64"):
        upload({"body": {"data": text}}, {})


@pytest.mark.parametrize("data", [5, 1.5, True, ["QUJD"], {"b64": "QUJD"}])
def test_data_of_another_type_is_a_bad_request(data: object) -> None:
    with pytest.raises(BadRequest, match='"data" must be one string'):
        upload({"body": {"data": data}}, {})


@pytest.mark.parametrize(
    "body",
    [[1, 2], [], 5, 0, 1.5, True, False, b'["QUJD"]', b'""', '["QUJD"]', '"QUJD"'],
)
def test_json_that_is_not_an_object_is_a_bad_request(body: object) -> None:
    with pytest.raises(BadRequest, match="must be an object"):
        upload({"body": body}, {})


@pytest.mark.parametrize("body", [b"5", b"true", b"\xef\xbb\xbf[]"])
def test_a_body_announced_as_json_is_json(body: bytes) -> None:
    with pytest.raises(BadRequest, match="must be an object"):
        upload({"body": body}, AS_JSON)


def test_json_sent_as_text_is_json() -> None:
    """TorchServe passes a body of type text/plain as str."""
    assert upload({"body": '{"data": "QUJD", "top_k": 2}'}, {}).picture == b"ABC"


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": ',
        b"{'data': 'QUJD'}",
        b'{"data": "\xff\xfe"}',
        b'{"data":' + b"[" * 200_000,
        b"[" * 200_000,
        b'{"data": "QUJD", "top_k": ' + b"9" * 10_000 + b"}",
        b"[" * 1000,
        b'{"a":' * 99,
        b"[" + b"[]," * 1000 + b"0]",
        b'{"data": NaN}',
        b'{"x": -Infinity}',
    ],
    ids=[
        "cut", "quotes", "not UTF-8", "deep", "deep list", "number of 10,000 digits",
        "1000 brackets", "99 objects", "1000 lists", "NaN", "-Infinity",
    ],
)  # fmt: skip
def test_broken_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest, match="JSON"):
        upload({"body": body}, {})


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
def test_a_request_without_a_picture_is_an_empty_body(row: Mapping[str, Any]) -> None:
    with pytest.raises(EmptyBody):
        upload(row, {})


PNG = b"\x89PNG\r\n\x1a\n the rest"


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
        upload(row, REST)


def test_several_pictures_in_a_list_are_refused() -> None:
    with pytest.raises(BadRequest, match="base64 of one picture"):
        upload(as_json(data=[base64_of(PNG)] * 2), AS_JSON)


def test_other_fields_are_not_pictures() -> None:
    request = upload({"data": PNG, "note": b"a horse", "copy": b"yes" * 1000}, REST)
    assert request.picture == PNG


@pytest.mark.parametrize("lost", [1, 3])
def test_a_form_that_lost_fields_is_refused(lost: int) -> None:
    """TorchServe passes only the last field of a name; the content length reveals the others."""
    picture, part = PNG * 400, 300
    headers = {**REST, "content-type": "multipart/form-data; boundary=b"}
    whole = {**headers, "content-length": str(len(picture) + part)}
    assert upload({"data": picture, "top_k": b"3"}, whole).picture == picture
    double = {**headers, "content-length": str((len(picture) + part) * (1 + lost))}
    with pytest.raises(BadRequest, match="more than once"):
        upload({"data": picture, "top_k": b"3"}, double)


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(BadRequest, match="more than once"):
        upload({"body": b'{"data": "AAAA", "top_k": 3, "top_k": 4}'}, AS_JSON)


def test_megabytes_of_brackets_take_no_memory() -> None:
    tracemalloc.start()
    with pytest.raises(BadRequest, match="more than 100 values"):
        upload({"body": b"[[]" + b",[]" * 2**22}, AS_JSON)
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "of",
    [
        lambda fields: ({"data": PNG, **fields}, REST),
        lambda fields: (
            {"data": PNG, **fields},
            {key: {"content-type": "text/plain"} for key in ["data", *fields]},
        ),
        lambda fields: ({"body": {"data": base64_of(PNG), **fields}}, REST),
    ],
    ids=["form", "gRPC", "parsed JSON"],
)
def test_fields_are_counted_before_they_are_read(of: Any) -> None:
    assert upload(*of({f"x{i}": b"1" for i in range(99)})).picture == PNG
    row, headers = of({f"x{i}": b"1" * 100 for i in range(40_000)})
    tracemalloc.start()
    with pytest.raises(BadRequest, match="more than 100 fields"):
        upload(row, headers)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_data_uri_is_recognised_at_the_beginning_only() -> None:
    uri = "data:;base64," + base64_of(PNG)
    with pytest.raises(BadRequest, match="several"):
        upload(as_json(data=base64_of(PNG), other=uri), AS_JSON)
    assert upload(as_json(data=base64_of(PNG), other="-" * 256 + uri), AS_JSON).picture == PNG


def test_a_picture_announced_as_json_is_a_picture() -> None:
    assert upload({"body": PNG}, AS_JSON).picture == PNG


def test_the_length_of_base64_is_checked_before_decoding() -> None:
    limits = Limits(request_bytes=300)
    assert upload(as_json(data=base64_of(bytes(300))), AS_JSON, limits).picture == bytes(300)
    for data in (base64_of(bytes(301)), base64_of(bytes(2**20))):
        with pytest.raises(TooLarge, match="more than 300 bytes"):
            upload(as_json(data=data), AS_JSON, limits)


def test_the_message_for_a_web_form_says_what_to_send() -> None:
    headers = {**REST, "content-type": "application/x-www-form-urlencoded"}
    with pytest.raises(EmptyBody, match="content type announces a web form"):
        upload({"a": b"b"}, headers)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": PNG}, "the picture is in the field image: send it in the field data"),
        (as_json(image=base64_of(PNG)), "the picture is in the field image: "),
        ({"a": b"", "file": b"%PDF", "b": b"1"}, "the picture is in the field file: "),
        ({"top_k": b"3"}, "the field data is missing, there is only top_k"),
        ({"photo": b"text", "top_k": b"3"}, "there is only photo, top_k"),
        ({f"f{i}": b"" for i in range(9)}, "there is only f0, f1, f2, f3, f4, ..."),
        ({"\xff\xd8 a picture": b""}, "there is only (an odd name)"),
        ({"n" * 41: PNG}, "the picture is in the field (an odd name): "),
        ({"data": b""}, "send it as the body, as the form field data or as JSON"),
        ({}, "send it as the body, as the form field data or as JSON"),
    ],
)
def test_the_message_names_the_field_that_was_sent(row: Mapping[str, Any], said: str) -> None:
    with pytest.raises(EmptyBody) as caught:
        upload(row, REST)
    assert said in caught.value.message
