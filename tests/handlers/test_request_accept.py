"""The format of the answer: the option ``format``, else ``Accept`` (RFC 9110, 12.5.1)."""

from __future__ import annotations

import pytest

from handlers.errors import InvalidOption, NotAcceptable
from handlers.request import Upload

OFFERED = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def negotiate(accept: str = "", **options: object) -> str:
    return Upload(b"P", options, accept).format(OFFERED)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "png"),
        ("  ", "png"),
        ("*/*", "png"),
        ("image/*", "png"),
        ("image/jpeg", "jpeg"),
        ("IMAGE/JPEG", "jpeg"),
        ("image/jpg, image/webp;q=0.9", "jpeg"),
        ("text/html, image/webp", "webp"),
        ("image/jpeg, image/webp", "jpeg"),
        ("image/webp, image/jpeg", "jpeg"),
        ("image/jpeg;q=0.5, image/webp;q=0.6", "webp"),
        ("image/jpeg; q=0.5 , image/webp ;q = 0.6", "webp"),
        ("image/png;q=0.1, */*;q=0.2", "jpeg"),
        ("image/png;q=0, */*", "jpeg"),
        ("image/png;q=0, image/jpeg;q=0.000, image/*;q=0.1", "webp"),
        ("image/*;q=0, image/webp", "webp"),
        ("*/*;q=0.9, image/*;q=0.1, image/webp;q=0.5", "webp"),
        ("image/webp;q=1.000;level=1, image/png;q=0.999", "webp"),
        # What a browser sends for its address bar.
        ("text/html,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", "webp"),
    ],
)
def test_accept_decides(accept: str, expected: str) -> None:
    assert negotiate(accept) == expected


@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/json", "image/gif, video/*", "*/*;q=0", "image/*;q=0.0", "png", ","],
)
def test_nothing_acceptable_is_406_with_the_media_types_on_offer(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="image/png, image/jpeg, image/webp"):
        negotiate(accept)


@pytest.mark.parametrize("value", ["webp", "WEBP", " webp\n"])
@pytest.mark.parametrize("accept", ["", "image/png", "text/html"])
def test_the_option_takes_precedence_over_accept(value: str, accept: str) -> None:
    assert negotiate(accept, format=value) == "webp"


@pytest.mark.parametrize("value", ["", "gif", "image/png", 5, True, ["png"], {"png": 1}])
def test_an_unknown_format_is_an_invalid_option(value: object) -> None:
    with pytest.raises(InvalidOption, match="png, jpeg, webp"):
        negotiate(format=value)
