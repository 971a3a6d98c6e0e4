"""Options: their sources, and the whole numbers that are accepted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from handlers.errors import InvalidOption
from handlers.request import Integer, Upload
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
