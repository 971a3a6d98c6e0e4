"""What is served, as the management API asks for it: an empty row with the header ``describe``."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from handlers.torchserve import Handler

Reply = tuple[int, dict[str, str], bytes]
Predict = Callable[..., list[Reply]]


@pytest.mark.parametrize("name", ["resnet101", "cyclegan"])
def test_it_says_what_is_served_and_where(
    request: pytest.FixtureRequest, predict: Predict, name: str
) -> None:
    handler: Handler = request.getfixturevalue("resnet" if name == "resnet101" else name)
    (reply,) = predict(handler, ({}, {"describe": "True"}))
    told = json.loads(reply[2])
    assert told["name"] == told["spec"]["name"] == name
    assert told["weights"]["name"] == "untrained"
    assert told["weights"]["trained"] is False
    assert told["device"] == "cpu"
    assert len(told["spec"]["labels"]) == (1000 if name == "resnet101" else 0)
    assert told["limits"]["pixels"] == 50_000_000


def test_a_client_cannot_ask_for_it(resnet: Handler, predict: Predict) -> None:
    """An empty form is an empty row too; what is served may name files of the server."""
    headers = {"describe": "True", "Host": "h", "content-type": "multipart/form-data; boundary=b"}
    (reply,) = predict(resnet, ({}, headers))
    assert (reply[0], json.loads(reply[2])["type"]) == (400, "EmptyBody")


def test_a_picture_with_that_header_is_still_a_prediction(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    headers = {"describe": "True", "Host": "h"}
    (reply,) = predict(resnet, ({"body": chelsea}, headers))
    assert "predictions" in json.loads(reply[2])


def test_an_empty_request_without_it_is_an_error(resnet: Handler, predict: Predict) -> None:
    (reply,) = predict(resnet, ({}, {"describe": "False", "Host": "h"}))
    assert reply[0] == 400
