"""Which network is asked: the default of the task, or the one that the caller names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.conftest import OVER_HTTP, PREDICTIONS, Blocking, Kind, vision
from tests.standin import CLASSIFIER, Answering
from vision_client import Client, ServerError

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
