"""Malformed errors, headers and answers, from a server or a proxy."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from tests.client.conftest import OVER_HTTP, Kind
from tests.standin import Answering
from vision_client import ServerError
from vision_client.answers import Reply
from vision_client.client import _pauses
from vision_client.errors import parse_error
from vision_client.tasks.classify import decode


@OVER_HTTP
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"7", 7),
        (b" 7 ", 7),
        (b"007", 7),
        (b"9" * 400, float("inf")),
        (b"", 0),
        (b"-5", 0),
        (b"1.5", 0),
        (b"1e3", 0),
        (b"inf", 0),
        (b"soon", 0),
        (b"\xb2", 0),  # a superscript 2 in Latin-1, a digit to str.isdigit
        ("²".encode(), 0),
        ("٣".encode(), 0),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (b"Thu, 99 Jan 99999999999999999999 00:00:00 GMT", 0),
        (b"Fri, 31 Dec 9999 23:59:59 +9999", 0),
        (b"Mon, 01 Jan 0001 00:00:00 +2359", 0),
    ],
)
def test_retry_after(kind: Kind, header: bytes, seconds: float) -> None:
    with Answering.started(503, {"retry-after": header}) as busy:
        with pytest.raises(ServerError) as caught:
            kind.make(busy.url, retries=0).classify(b"x")
        assert caught.value.retry_after == seconds


@OVER_HTTP
def test_retry_after_a_date(kind: Kind) -> None:
    header = formatdate(time.time() + 3600, usegmt=True).encode()
    with Answering.started(503, {"retry-after": header}) as busy:
        with pytest.raises(ServerError) as caught:
            kind.make(busy.url, retries=0).classify(b"x")
        assert caught.value.retry_after == pytest.approx(3600, abs=120)


@OVER_HTTP
def test_no_pause_is_longer_than_the_timeout(kind: Kind) -> None:
    with Answering.started(503, {"retry-after": b"120"}) as busy:
        start = time.monotonic()
        with pytest.raises(ServerError, match="503"):
            kind.make(busy.url, timeout=2, retries=1).classify(b"x")
        assert len(busy.asked) == 2
        assert time.monotonic() - start < 60


def test_many_retries() -> None:
    """The pauses double, but the 1100th must not overflow a float."""
    assert len(list(_pauses(1100))) == 1100


@pytest.mark.parametrize(
    "body",
    [
        b'{"code": 1e999, "type": "Busy", "message": "x"}',
        b'{"code": [1], "type": "Busy", "message": "x"}',
        b'{"code": ' + b"[" * 100_000,
        b'{"code": "many", "type": "Busy", "message": "x"}',
        b"{" + b"9" * 5000,
    ],
)
def test_malformed_errors(body: bytes) -> None:
    assert parse_error(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"predictions": [{"class_id": 1e999, "label": "cat", "probability": 0.5}]}',
        b'{"predictions": [{"class_id": 1, "label": "cat", "probability": NaN}]}',
        b'{"predictions": [{"class_id": 1, "label": "cat", "probability": 1e12}]}',
        b'{"predictions": [{"class_id": 1, "label": "cat", "probability": -1}]}',
        b'{"predictions": []}',
        b'{"predictions": ' + b"[" * 100_000,
        b"[1]",
    ],
)
def test_malformed_predictions(body: bytes) -> None:
    with pytest.raises(ServerError, match="502 UnexpectedAnswer: not predictions but"):
        decode(Reply(body), 0.1)
