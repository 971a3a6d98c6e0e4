"""A network is one file: new ones, one for each task, from outside the repository, are served."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.checkpoints import untrained
from export.networks import find
from handlers.pictures.resample import resample
from tests.running import ROOT, Command, MakeConfig, Running, started
from tests.tensors import to_tensor
from vision_client import Client, ServerError
from vision_client.tasks.embed import EMBED

pytestmark = pytest.mark.slow

CLASSIFIER, PICTURES, FEATURES = "tiny_classifier", "superres2x", "tiny_features"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies outside the repository: a classifier, a network that doubles a picture's size, and
    the classifier again, for its features.
    """
    folder = tmp_path_factory.mktemp("mine")
    copies = {}
    for name in (CLASSIFIER, PICTURES):
        copies[name] = folder / f"{name}.py"
        copies[name].write_bytes((ROOT / "tests" / "networks" / f"{name}.py").read_bytes())
    text = copies[CLASSIFIER].read_text().replace(f'"{CLASSIFIER}"', f'"{FEATURES}"')
    copies[FEATURES] = folder / f"{FEATURES}.py"
    copies[FEATURES].write_text(text.replace('task="classify"', 'task="embed"'))
    return copies


@pytest.fixture(scope="module")
def new_server(
    files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    serving: Command,
    make_config: MakeConfig,
) -> Iterator[Running]:
    """A server of nothing but these, exported and started by the commands of a user."""
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


def test_the_features_are_those_of_eager_pytorch(
    new_server: Running,
    client: Client,
    files: dict[str, Path],
    photographs: dict[str, Image.Image],
) -> None:
    network = find(str(files[FEATURES]))
    photograph = photographs["chelsea"].resize((64, 64))
    with torch.inference_mode():
        [expected] = untrained(network)(
            to_tensor(network.spec(), resample(network.spec(), photograph))[None]
        )
    answer = client.embed(photograph, model=FEATURES)
    assert answer.untrained
    np.testing.assert_allclose(answer.numpy(), expected, rtol=1e-4, atol=1e-5)
    unit = client.embed(photograph, model=FEATURES, normalize=True).numpy()
    np.testing.assert_allclose(unit, expected / expected.norm(), rtol=1e-4, atol=1e-5)
    record = json.loads((new_server.config.model_store / f"{FEATURES}.json").read_text())
    verdicts = [record["engines"]["openvino"], *record["precisions"].values()]
    assert all(verdict["passed"] for verdict in verdicts), verdicts
    with pytest.raises(ServerError, match="normalize must be true or false"):
        client.ask(EMBED, photograph, FEATURES, normalize="yes")


def test_the_documented_commands_for_embeddings(
    new_server: Running, tmp_path: Path, jpeg: bytes
) -> None:
    lines = re.findall(
        r"^(?:curl .*_embed|vision embed ).*$", (ROOT / "docs/clients.md").read_text(), re.MULTILINE
    )
    assert len(lines) == 3
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "photo.jpg", tmp_path / "photos" / "one.jpg"):
        path.write_bytes(jpeg)
    script = "\n".join(["set -e", *lines]).replace("curl", "curl --silent --show-error --fail")
    script = script.replace("http://127.0.0.1:8080", new_server.config.inference)
    folder = Path(sys.executable).parent
    variables = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "VISION_SERVER": new_server.config.inference,
    }
    run = subprocess.run(
        ["bash", "-c", script.replace("resnet101_embed", FEATURES)], cwd=tmp_path, text=True,
        env={**os.environ, **variables}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    values = json.loads(run.stdout.splitlines()[-1])["embedding"]
    unit = np.load(tmp_path / "vector.npy")
    np.testing.assert_allclose(unit, values / np.linalg.norm(values), rtol=1e-5, atol=1e-6)
    with np.load(tmp_path / "vectors.npz") as file:
        np.testing.assert_allclose(file["vectors"], [values], rtol=1e-5, atol=1e-6)


def test_an_output_over_the_limit_is_refused(client: Client) -> None:
    with pytest.raises(ServerError, match="2000000") as caught:
        client.translate(Image.new("RGB", (100, 100)), size=1024, model=PICTURES)
    assert caught.value.code == 413


def test_status_lists_what_is_served(new_server: Running, serving: Command) -> None:
    where = ("--config", new_server.config.path, "--run-dir", new_server.run.path)
    status = serving("status", *where)
    assert status.returncode == 0, status.stdout + status.stderr
    answering = [line.split()[0] for line in status.stdout.splitlines() if "answers" in line]
    assert sorted(answering) == [PICTURES, CLASSIFIER, FEATURES]
