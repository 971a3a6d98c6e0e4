"""Which network is asked: the default of the task, or the one that the caller names."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from handlers.pictures.decode import decode
from tests.client.conftest import OVER_HTTP, PREDICTIONS, Blocking, Kind, vision
from tests.standin import CLASSIFIER, MODELS, TOP_K, TRANSLATOR, Answering
from vision_client import Client, ServerError
from vision_client.tasks.decoder import PIXEL

PICTURE = b"\x89PNG and more"


@OVER_HTTP
def test_a_network_by_name(kind: Kind) -> None:
    with Answering.started(body=PREDICTIONS) as server:
        kind.make(server.url).classify(b"x", model="vit_b_16")
    assert server.paths == ["/predictions/vit_b_16"]
    with Answering.started(body=PICTURE) as server:
        kind.make(server.url).translate(b"x", model="upscale", size=64)
    assert server.paths == ["/predictions/upscale"]
    assert server.asked[0]["x-size"] == "64"


@OVER_HTTP
def test_a_name_that_is_no_part_of_a_path(kind: Kind) -> None:
    with Answering.started(body=PREDICTIONS) as server:
        client = kind.make(server.url)
        client.classify(b"x", model="../models/a?b#c%2f")
        for name in ("", ".", ".."):
            with pytest.raises(ValueError, match="is not the name of a model"):
                client.classify(b"x", model=name)
    assert server.paths == ["/predictions/..%2Fmodels%2Fa%3Fb%23c%252f"]


def test_a_network_that_is_not_served(client: Client | Blocking, jpeg: bytes) -> None:
    with pytest.raises(ServerError, match="404 ModelNotFound: "):
        client.classify(jpeg, model="vit_b_16")


@pytest.mark.parametrize(
    ("command", "options", "body", "model"),
    [
        ("classify", (), PREDICTIONS, CLASSIFIER),
        ("classify", ("--model", "vit_b_16"), PREDICTIONS, "vit_b_16"),
        # Another network may have no multiple: the server knows.
        ("translate", ("--model", "upscale", "--size", "65"), PICTURE, "upscale"),
    ],
)
def test_the_command(
    tmp_path: Path, command: str, options: tuple[str, ...], body: bytes, model: str
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"x")
    with Answering.started(body=body) as server:
        output = ("-o", tmp_path / "output")
        run = vision(command, photo, *output, *options, VISION_SERVER=server.url)
    assert (run.returncode, run.stderr) == (0, "")
    assert server.paths == [f"/predictions/{model}"]


@OVER_HTTP
@pytest.mark.parametrize("model", [None, CLASSIFIER])
def test_the_labels_of_a_network(kind: Kind, model: str | None) -> None:
    """All of them, although most are improbable, in the order of their numbers."""
    order = [(1, "dog"), (2, "fox"), (0, "cat")]
    predictions = [{"class_id": i, "label": label, "probability": 0.3} for i, label in order]
    body = json.dumps({"predictions": predictions}).encode()
    with Answering.started(body=body) as server:
        top_k = {"top_k": dataclasses.replace(TOP_K, high=3)}
        server.models = (dataclasses.replace(MODELS[0], options=top_k), MODELS[1])
        client = kind.make(server.url)
        assert client.labels(model) == ("cat", "dog", "fox")
        assert server.asked[0]["x-top-k"] == "3"
        with pytest.raises(
            ValueError, match=f"no classes of {TRANSLATOR}, whose task is translate"
        ):
            client.labels(TRANSLATOR)
        with pytest.raises(ServerError, match=f"404 ModelNotFound: .*{CLASSIFIER}, {TRANSLATOR}"):
            client.labels("vit_b_16")
    assert len(server.asked) == 1


def test_the_picture_that_asks_for_labels_is_one() -> None:
    assert decode(PIXEL).size == (1, 1)
