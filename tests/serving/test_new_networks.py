"""A network is one file: two new ones, from a folder outside the repository, are served."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from export.checkpoints import untrained
from export.networks import find
from tests.running import ROOT, Command, MakeConfig, Running, started
from vision_client import Client, ServerError

pytestmark = pytest.mark.slow

CLASSIFIER, PICTURES = "tiny_classifier", "superres2x"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies outside the repository: a classifier, and a network that doubles a picture's size."""
    folder = tmp_path_factory.mktemp("mine")
    copies = {}
    for name in (CLASSIFIER, PICTURES):
        copies[name] = folder / f"{name}.py"
        copies[name].write_bytes((ROOT / "tests" / "networks" / f"{name}.py").read_bytes())
    return copies


@pytest.fixture(scope="module")
def new_server(
    files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    serving: Command,
    make_config: MakeConfig,
) -> Iterator[Running]:
    """A server of nothing but the two, exported and started by the commands of a user."""
    folder = tmp_path_factory.mktemp("new_networks")
    store = folder / "model_store"
    command = [sys.executable, "-m", "export", *map(str, files.values()), "--weights", "random"]
    subprocess.run([*command, "--model-store", str(store)], cwd=ROOT, check=True, timeout=300)
    with started(folder, make_config(folder, store), serving, "float32") as running:
        yield running


@pytest.fixture(params=["rest", "grpc"])
def client(new_server: Running, request: pytest.FixtureRequest) -> Iterator[Client]:
    config = new_server.config
    address = config.inference if request.param == "rest" else f"grpc://{config.grpc}"
    with Client(address) as connected:
        yield connected


def test_the_classifier(client: Client, files: dict[str, Path], jpeg: bytes) -> None:
    answer = client.classify(jpeg, top_k=3, model=CLASSIFIER)
    assert sorted(p.label for p in answer.predictions) == ["cat", "dog", "horse"]
    assert sum(p.probability for p in answer.predictions) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ServerError, match="top_k must be from 1 to 3"):
        client.classify(jpeg, top_k=4, model=CLASSIFIER)


def test_the_network_that_doubles_a_picture(
    client: Client, files: dict[str, Path], photographs: dict[str, Image.Image]
) -> None:
    photograph = photographs["chelsea"].resize((96, 64))
    answer = client.translate(photograph, size=64, model=PICTURES)
    network = untrained(find(str(files[PICTURES])))
    levels = torch.frombuffer(bytearray(photograph.tobytes()), dtype=torch.uint8)
    pixels = levels.view(64, 96, 3).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        expected = network(pixels)[0].mul(255)
    picture = answer.image()
    assert picture.size == (192, 128)
    served = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(128, 192, 3)
    assert (served.permute(2, 0, 1) - expected).abs().max() <= 1


def test_an_output_over_the_limit_is_refused(client: Client) -> None:
    with pytest.raises(ServerError, match="2000000") as caught:
        client.translate(Image.new("RGB", (100, 100)), size=1024, model=PICTURES)
    assert caught.value.code == 413


def test_status_lists_what_is_served(new_server: Running, serving: Command) -> None:
    where = ("--config", new_server.config.path, "--run-dir", new_server.run.path)
    status = serving("status", *where)
    assert status.returncode == 0, status.stdout + status.stderr
    answering = [line.split()[0] for line in status.stdout.splitlines() if "answers" in line]
    assert sorted(answering) == [PICTURES, CLASSIFIER]
