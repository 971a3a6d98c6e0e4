"""Options: their sources, and the whole numbers that are accepted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from handlers.errors import InvalidOption
from handlers.request import Integer, Message, Offer, Switch, Upload, parse
from tests.handlers.support import upload


@pytest.mark.parametrize("name", ["x-top-k", "X-Top-K", "X-TOP-K", "x-top_k"])
def test_an_option_from_a_header_in_any_case(name: str) -> None:
    assert upload({"body": b"P"}, {"Host": "h", name: "7"}).options["top_k"] == "7"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"data": b"P", "top_k": b"3"}, "3"),
        ({"data": b"P", "top_k": bytearray(b"3")}, "3"),
        ({"data": b"P", "top_k": "3"}, "3"),
        ({"body": {"data": "UA==", "top_k": 3}}, 3),
        ({"body": json.dumps({"data": "UA==", "top_k": 3}).encode()}, 3),
        ({"body": {"data": "UA==", "top_k": "3"}}, "3"),
    ],
)
def test_a_field_takes_precedence_over_a_header(row: Mapping[str, Any], expected: object) -> None:
    assert upload(row, {"X-Top-K": "7"}).options["top_k"] == expected


def test_a_field_that_is_not_text_is_an_invalid_option() -> None:
    request = upload({"data": b"P", "top_k": b"\xff\xfe"}, {})
    with pytest.raises(InvalidOption):
        request.integer("top_k", Integer(5, 1, 9))


@pytest.mark.parametrize("row", [{"body": b"P"}, {"data": b"P"}, {"body": {"data": "UA=="}}])
def test_the_picture_is_not_an_option(row: Mapping[str, Any]) -> None:
    # Copying it and decoding it as text would take 0.2 s for a picture of 16 MiB.
    assert upload(row, {"Host": "h", "Accept": "*/*"}).options == {}


def integer(value: object) -> int:
    options = {"size": value}
    return Upload(b"P", options, "").integer("size", Integer(256, 4, 1024, 4))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(4, 4), (1024, 1024), ("64", 64), (" 64 ", 64), ("+64", 64), ("0000064", 64), ("\t64\n", 64)],
)
def test_whole_numbers_within_bounds(value: object, expected: int) -> None:
    assert integer(value) == expected


@pytest.mark.parametrize("value", [0, -4, 3, 1028, "0", "-4", "1028", 66, "65", 10**30, -(10**30)])
def test_numbers_out_of_bounds_or_between_multiples(value: object) -> None:
    with pytest.raises(InvalidOption, match="from 4 to 1024 in multiples of 4"):
        integer(value)


@pytest.mark.parametrize(
    "value",
    [
        True, False, 64.5, float("nan"), float("inf"), None, [64], {"64": 64}, "", " ", "64.0",
        "6 4", "0x40", "6_4", "\uff11\uff12\uff18", "NaN", "sixty-four", "64\0", "64,64",
        "9" * 8, "9" * 10_000_000,
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_values_that_are_not_whole_numbers(value: object) -> None:
    with pytest.raises(InvalidOption, match="size must be a whole number") as caught:
        integer(value)
    assert len(caught.value.message) < 200


def test_a_missing_option_has_its_default() -> None:
    request = Upload(b"P", {}, "")
    assert request.integer("top_k", Integer(5, 1, 1000)) == 5


def test_the_message_does_not_mention_multiples_of_one() -> None:
    with pytest.raises(InvalidOption) as caught:
        Upload(b"P", {"top_k": 0}, "").integer("top_k", Integer(5, 1, 1000))
    assert caught.value.message == "top_k must be from 1 to 1000, not 0"


TOP_K = Offer({"json": "application/json"}, {"top_k": Integer(5, 1, 1000)})
PICTURE = Offer({"png": "image/png", "jpeg": "image/jpeg"}, {"size": Integer(256, 64, 1024, 4)})


@pytest.mark.parametrize(
    ("header", "offer", "right"),
    [
        *((f"x-{name}", TOP_K, "x-top-k") for name in ("topk", "to-pk", "top--k", "x-top-k")),
        *((f"x-{name}", TOP_K, "x-top-k") for name in ("top", "topkk", "tpo-k")),
        *((name, TOP_K, "x-top-k") for name in ("top_k", "top-k", "topk", "x_top_k")),
        ("x-sizee", PICTURE, "x-size"),
        ("size", PICTURE, "x-size"),
        ("x-fromat", PICTURE, "x-format"),
        ("x-formet", PICTURE, "x-format"),
    ],
)
def test_a_misspelt_header_is_refused(header: str, offer: Offer, right: str) -> None:
    value = "jpg" if right == "x-format" else "64"
    with pytest.raises(InvalidOption) as caught:
        parse(Message({header: value}, b"P"), offer)
    assert caught.value.message == f"there is no option {header}: use {right}"


@pytest.mark.parametrize("name", ["topk", "top-k", "Top_K", "x-top-k", "tpo_k"])
@pytest.mark.parametrize("value", [b"3", 3])
def test_a_misspelt_field_is_refused(name: str, value: object) -> None:
    body = None if isinstance(value, bytes) else {"data": "UA==", name: value}
    fields = {"data": b"P", name: value} if body is None else {}
    with pytest.raises(InvalidOption) as caught:
        parse(Message({}, body, fields), TOP_K)
    assert caught.value.message == f"there is no option {name}: use top_k"


@pytest.mark.parametrize("value", ["true", "False", "1"])
def test_a_misspelt_switch_is_refused(value: str) -> None:
    offer = Offer({"json": "application/json"}, {"normalize": Switch()})
    with pytest.raises(InvalidOption, match="no option x-normalise: use x-normalize"):
        parse(Message({"x-normalise": value}, b"P"), offer)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-site": "42", "x-side": "3", "x-sizee": "shop", "x-formal": "yes"},
        {"x-top-k": "3", "x-size": "64", "x-quality": "90"},  # of other models
        {"x-forwarded-for": "::1", "x-request-id": "a", "x-amz-date": "1", "x-topics": "3"},
        {"x-timeout-ms": "60", "x-": "1", "x": "1", "top": "3", "tpo-k": "3", "x-" + "k" * 9: "1"},
    ],
)
def test_headers_of_others_are_ignored(headers: Mapping[str, str]) -> None:
    offers = (PICTURE, Offer(TOP_K.formats, {"top_k": Integer(5, 1, 1000)}))
    expected = {"size": int(headers.get("x-size", 256))}, {"top_k": int(headers.get("x-top-k", 5))}
    for offer, options in zip(offers, expected, strict=True):
        assert parse(Message(headers, b"P"), offer).options == options


@pytest.mark.parametrize("name", ["jpg", "JPG", " jpeg "])
def test_jpg_is_jpeg(name: str) -> None:
    assert parse(Message({"x-format": name}, b"P"), PICTURE).format == "jpeg"
    assert (
        parse(Message({}, None, {"data": b"P", "format": name.encode()}), PICTURE).format == "jpeg"
    )
    with pytest.raises(InvalidOption, match="format must be one of json"):
        parse(Message({"x-format": name}, b"P"), TOP_K)
