"""The client package and its users notice no difference between the servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.routes import Server
from vision_client import Client, ServerError


@pytest.fixture(params=["http", "grpc"])
def client(served: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    url = served.rest if request.param == "http" else f"grpc://{served.grpc_address}"
    with Client(url) as connected:
        yield connected


def test_predictions_and_errors(client: Client, jpeg: bytes) -> None:
    answer = client.classify(jpeg, top_k=3, model="resnet101")
    assert len(answer.predictions) == 3
    translation = client.translate(jpeg, size=64, format="jpeg", model="cyclegan")
    assert translation.image().size == (96, 64)
    with pytest.raises(ServerError, match="top_k must be from 1 to 1000") as caught:
        client.classify(jpeg, top_k=1001, model="resnet101")
    assert (caught.value.code, caught.value.type) == (422, "InvalidOption")


def test_a_model_without_a_name_is_found(served: Server, jpeg: bytes) -> None:
    with Client(served.rest) as client:
        try:
            found = len(client.classify(jpeg).predictions) == 5
        except ServerError:
            found = False
    assert found is served.expected("the client finds the models", True)
