"""Predictions over REST: forms of a request, formats of an answer, errors."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
import requests
from PIL import Image

from serving.archives import VERSION
from tests.conftest import MODELS
from tests.routes import TIMEOUT_S, Server, post

JSON = {"content-type": "application/json"}


def forms(jpeg: bytes) -> dict[str, dict[str, Any]]:
    """Every way to send one picture, top_k=3 and size=64. A model ignores another's option."""
    encoded = base64.b64encode(jpeg).decode()
    return {
        "raw": {"data": jpeg, "headers": {"x-top-k": "3", "x-size": "64"}},
        "raw, wrong type": {"data": jpeg, "headers": {"X-Top-K": "3", "X-Size": "64", **JSON}},
        "raw, as text": {
            "data": jpeg,
            "headers": {"X-TOP-K": "3", "X-SIZE": "64", "content-type": "text/plain"},
        },
        "multipart": {"files": {"data": ("cat.jpg", jpeg)}, "data": {"top_k": "3", "size": "64"}},
        "json": {"json": {"data": encoded, "top_k": 3, "size": 64}},
        "json, text option": {"json": {"data": encoded, "top_k": "3", "size": "64"}},
        "json, data uri": {
            "json": {"data": f"data:image/jpeg;base64,{encoded}", "top_k": 3, "size": 64}
        },
    }


@pytest.mark.parametrize("form", forms(b""))
def test_every_form_of_a_request_is_answered_alike(served: Server, jpeg: bytes, form: str) -> None:
    expected = post(served, "resnet101", **forms(jpeg)["raw"]).json()["predictions"]
    answer = post(served, "resnet101", **forms(jpeg)[form])
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-model-weights"] == "untrained"
    assert VERSION.fullmatch(answer.headers["x-model-version"])
    assert answer.headers["x-request-id"]
    predictions = answer.json()["predictions"]
    assert len(predictions) == 3
    assert [p["class_id"] for p in predictions] == [p["class_id"] for p in expected]
    probabilities = [p["probability"] for p in predictions]
    assert probabilities == sorted(probabilities, reverse=True)

    answer = post(served, "cyclegan", **forms(jpeg)[form])
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-model-weights"] == "untrained"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert (picture.format, picture.size) == ("PNG", (96, 64))


def test_put_as_curl_t_sends_it(served: Server, jpeg: bytes) -> None:
    answer = requests.put(served.url("resnet101"), data=jpeg, timeout=TIMEOUT_S)
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == 5


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "PNG"),
        ({"accept": "*/*"}, "PNG"),
        ({"accept": "image/jpeg"}, "JPEG"),
        ({"accept": "text/html, image/webp;q=0.9, image/jpeg;q=0.8"}, "WEBP"),
        ({"accept": "image/jpeg", "x-format": "webp"}, "WEBP"),
    ],
)
def test_the_picture_has_the_requested_format(
    served: Server, jpeg: bytes, headers: dict[str, str], expected: str
) -> None:
    headers = {"x-size": "64", "x-quality": "50", **headers}
    answer = post(served, "cyclegan", data=jpeg, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"image/{expected.lower()}"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert (picture.format, picture.size) == (expected, (96, 64))


def test_quality_changes_the_size(served: Server, jpeg: bytes) -> None:
    headers = {"x-size": "64", "x-format": "jpeg"}
    small, large = (
        post(served, "cyclegan", data=jpeg, headers={**headers, "x-quality": quality}).content
        for quality in ("20", "95")
    )
    assert len(small) < len(large)


def blank(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


OPTIONS = {422: "InvalidOption", 406: "NotAcceptable"}
# Models, what is sent, status and type of the answer; the photograph is sent if nothing else is.
ERRORS: dict[str, tuple[tuple[str, ...], dict[str, Any], int, str]] = {
    "empty": (MODELS, {"data": b""}, 400, "EmptyBody"),
    "no picture": (MODELS, {"data": b"once upon a time"}, 400, "BadImage"),
    "malformed json": (MODELS, {"data": b'{"data": ', "headers": JSON}, 400, "BadRequest"),
    "json list": (MODELS, {"json": [1, 2]}, 400, "BadRequest"),
    "bad base64": (MODELS, {"json": {"data": "&&&"}}, 400, "BadRequest"),
    "heic": (MODELS, {"data": b"\0\0\0\x18ftypheic" + bytes(100)}, 415, "UnsupportedFormat"),
    "svg": (MODELS, {"data": b"<svg xmlns='x'/>"}, 415, "UnsupportedFormat"),
    "too many bytes": (MODELS, {"data": bytes(16 * 2**20 + 1)}, 413, "TooLarge"),
    "too many pixels": (MODELS, {"data": blank(8000, 8000)}, 413, "TooLarge"),
    "too long to translate": (("cyclegan",), {"data": blank(20000, 50)}, 413, "TooLarge"),
    **{
        f"{name}: {value}": ((model,), {"headers": {name: value}}, code, OPTIONS[code])
        for model, name, value, code in (
            ("resnet101", "x-top-k", "0", 422),
            ("resnet101", "x-top-k", "1001", 422),
            ("resnet101", "x-top-k", "three", 422),
            ("resnet101", "x-format", "xml", 422),
            ("resnet101", "accept", "image/png", 406),
            ("cyclegan", "x-size", "62", 422),
            ("cyclegan", "x-size", "66", 422),
            ("cyclegan", "x-size", "1028", 422),
            ("cyclegan", "x-quality", "96", 422),
            ("cyclegan", "x-format", "gif", 422),
            ("cyclegan", "accept", "application/json", 406),
        )
    },
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_json_with_their_own_status(served: Server, jpeg: bytes, case: str) -> None:
    models, request, code, kind = ERRORS[case]
    if "json" not in request:
        request = {"data": jpeg, **request}
    for model in models:
        answer = post(served, model, **request)
        assert answer.status_code == code, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-error-type"] == kind
        assert answer.headers["x-model-weights"] == "untrained"
        error = answer.json()
        assert (error["code"], error["type"]) == (code, kind)
        assert error["message"]
        if case == "too many pixels":
            assert "64000000 pixels; the limit is 50000000" in error["message"]


def test_a_long_picture_is_classified(served: Server) -> None:
    assert post(served, "resnet101", data=blank(20000, 50)).status_code == 200
