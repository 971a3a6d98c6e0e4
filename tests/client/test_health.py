"""The canary."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.client.conftest import PREDICTIONS
from tests.standin import Answering
from vision_client import Client
from vision_client.health import CANARY, ModelHealth, check_model
from vision_client.tasks import DECODERS


@pytest.mark.parametrize("task", DECODERS)
def test_the_cheapest_request_is_sent_to_the_named_model(task: str) -> None:
    with (
        Answering.started(503, body=b'{"code": 503, "type": "Full", "message": "x"}') as server,
        Client(server.url, retries=0) as client,
    ):
        assert check_model(client, "mine", task) == ModelHealth("mine", False, error="503 Full: x")
    assert server.paths == ["/predictions/mine"]
    option, value = {"classify": ("x-top-k", "1"), "translate": ("x-size", "64")}[task]
    assert server.asked[0][option] == value


@pytest.mark.parametrize(
    ("task", "body", "error"),
    [
        ("classify", b"<html>", "502 UnexpectedAnswer: not predictions but '<html>'"),
        ("classify", PREDICTIONS.replace(b"0.5", b"NaN"), "502 UnexpectedAnswer: not predictions"),
        ("translate", b"<html>", "502 UnexpectedAnswer: not a picture but '<html>'"),
        ("translate", b'{"code": 500, "type": "Bug", "message": "x"}', "500 Bug: x"),
    ],
)
def test_a_wrong_answer_is_not_healthy(task: str, body: bytes, error: str) -> None:
    with Answering.started(body=body) as server, Client(server.url) as client:
        health = check_model(client, "mine", task)
    assert not health.answers
    assert (health.error or "").startswith(error)


def test_the_canary_is_a_picture() -> None:
    with Image.open(io.BytesIO(CANARY)) as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (64, 64))
