"""The prediction contract over REST, on the real server."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
import requests
from PIL import Image

TIMEOUT_S = 60


def forms(jpeg: bytes) -> dict[str, dict[str, Any]]:
    """Every way to send one picture and top_k=3."""
    encoded = base64.b64encode(jpeg).decode()
    return {
        "raw": {"data": jpeg, "headers": {"x-top-k": "3"}},
        "raw, lying type": {
            "data": jpeg,
            "headers": {"X-Top-K": "3", "content-type": "application/json"},
        },
        "raw, as text": {"data": jpeg, "headers": {"X-TOP-K": "3", "content-type": "text/plain"}},
        "multipart": {"files": {"data": ("cat.jpg", jpeg)}, "data": {"top_k": "3"}},
        "json": {"json": {"data": encoded, "top_k": 3}},
        "json, text option": {"json": {"data": encoded, "top_k": "3"}},
        "json, data uri": {"json": {"data": f"data:image/jpeg;base64,{encoded}", "top_k": 3}},
    }


@pytest.mark.parametrize("form", forms(b""))
def test_every_form_of_a_request_is_classified_alike(server: Any, jpeg: bytes, form: str) -> None:
    expected = requests.post(
        server.url("resnet101"), data=jpeg, headers={"x-top-k": "3"}, timeout=TIMEOUT_S
    )
    answer = requests.post(server.url("resnet101"), timeout=TIMEOUT_S, **forms(jpeg)[form])
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-model-weights"] == "untrained"
    assert answer.headers["x-request-id"]
    predictions = answer.json()["predictions"]
    assert [p["class_id"] for p in predictions] == [
        p["class_id"] for p in expected.json()["predictions"]
    ]
    assert len(predictions) == 3
    probabilities = [p["probability"] for p in predictions]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize("form", forms(b""))
def test_every_form_of_a_request_is_translated(server: Any, jpeg: bytes, form: str) -> None:
    answer = requests.post(server.url("cyclegan"), timeout=TIMEOUT_S, **forms(jpeg)[form])
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-model-weights"] == "untrained"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert (picture.format, picture.size) == ("PNG", (384, 256))


def test_put_is_what_curl_t_sends(server: Any, jpeg: bytes) -> None:
    answer = requests.put(server.url("resnet101"), data=jpeg, timeout=TIMEOUT_S)
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
def test_the_picture_comes_in_the_format_asked_for(
    server: Any, jpeg: bytes, headers: dict[str, str], expected: str
) -> None:
    headers = {"x-size": "64", "x-quality": "50", **headers}
    answer = requests.post(server.url("cyclegan"), data=jpeg, headers=headers, timeout=TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"image/{expected.lower()}"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert (picture.format, picture.size) == (expected, (96, 64))


def test_quality_is_heeded(server: Any, jpeg: bytes) -> None:
    def size(quality: str) -> int:
        headers = {"x-size": "64", "x-format": "jpeg", "x-quality": quality}
        answer = requests.post(
            server.url("cyclegan"), data=jpeg, headers=headers, timeout=TIMEOUT_S
        )
        return len(answer.content)

    assert size("20") < size("95")


ERRORS: dict[str, tuple[dict[str, Any], int, str]] = {
    "empty": ({"data": b""}, 400, "EmptyBody"),
    "no picture": ({"data": b"once upon a time"}, 400, "BadImage"),
    "malformed json": (
        {"data": b'{"data": ', "headers": {"content-type": "application/json"}},
        400,
        "BadRequest",
    ),
    "json list": ({"json": [1, 2]}, 400, "BadRequest"),
    "bad base64": ({"json": {"data": "&&&"}}, 400, "BadRequest"),
    "heic": ({"data": b"\0\0\0\x18ftypheic" + bytes(100)}, 415, "UnsupportedFormat"),
    "svg": ({"data": b"<svg xmlns='x'/>"}, 415, "UnsupportedFormat"),
    "too many bytes": ({"data": bytes(16 * 2**20 + 1)}, 413, "TooLarge"),
}


@pytest.mark.parametrize("model", ["resnet101", "cyclegan"])
@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_json_with_their_own_status(server: Any, model: str, case: str) -> None:
    request, code, kind = ERRORS[case]
    answer = requests.post(server.url(model), timeout=TIMEOUT_S, **request)
    assert answer.status_code == code, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == code
    assert answer.json()["type"] == kind
    assert answer.json()["message"]


@pytest.mark.parametrize(
    ("model", "headers", "code"),
    [
        ("resnet101", {"x-top-k": "0"}, 422),
        ("resnet101", {"x-top-k": "1001"}, 422),
        ("resnet101", {"x-top-k": "three"}, 422),
        ("resnet101", {"accept": "image/png"}, 406),
        ("resnet101", {"x-format": "xml"}, 422),
        ("cyclegan", {"x-size": "62"}, 422),
        ("cyclegan", {"x-size": "66"}, 422),
        ("cyclegan", {"x-size": "1028"}, 422),
        ("cyclegan", {"x-quality": "96"}, 422),
        ("cyclegan", {"x-format": "gif"}, 422),
        ("cyclegan", {"accept": "application/json"}, 406),
    ],
)
def test_options_are_validated(
    server: Any, jpeg: bytes, model: str, headers: dict[str, str], code: int
) -> None:
    answer = requests.post(server.url(model), data=jpeg, headers=headers, timeout=TIMEOUT_S)
    assert answer.status_code == code, answer.text


def test_an_elongated_picture_is_classified_and_too_large_to_translate(server: Any) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20000, 50), "teal").save(buffer, "PNG")
    assert requests.post(server.url("resnet101"), data=buffer.getvalue(), timeout=TIMEOUT_S).ok
    answer = requests.post(server.url("cyclegan"), data=buffer.getvalue(), timeout=TIMEOUT_S)
    assert (answer.status_code, answer.json()["type"]) == (413, "TooLarge")


def test_pixels_are_counted_before_decoding(server: Any) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8000, 8000)).save(buffer, "PNG")
    answer = requests.post(server.url("resnet101"), data=buffer.getvalue(), timeout=TIMEOUT_S)
    assert (answer.status_code, answer.json()["type"]) == (413, "TooLarge")
    assert "64000000 pixels; the limit is 50000000" in answer.json()["message"]


def test_describe_shows_what_is_served(server: Any) -> None:
    found = server.management.describe("resnet101")
    assert found["weights"]["name"] == "untrained"
    assert found["device"] == server.management.workers("resnet101")[0].device
    assert found["spec"]["resize"] == 256
    assert len(found["spec"]["labels"]) == 1000
