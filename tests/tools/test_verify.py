"""`make verify` with answers of untrained networks in place of published ones, and its errors."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models import ResNet101_Weights

from export.checkpoints import untrained
from export.networks import Network, registered
from serving.config import Config
from serving.errors import ServingError
from serving.management import Management
from serving.runfolder import RunFolder
from tests.running import Command, Running
from tools import reference, verify
from vision_client import Prediction

pytestmark = pytest.mark.slow

EXPECTED = {"pug": 90.0, "beagle": 6.0, "boxer": 0.3, "Siamese": 0.2, "Persian": 0.1}


def predictions(expected: Mapping[str, float], **changes: float) -> list[Prediction]:
    """``expected`` as an answer, best first, with the percents of ``changes``."""
    percents = {**expected, **changes}
    ordered = sorted(percents, key=lambda label: -percents[label])
    return [Prediction(i, label, percents[label] / 100) for i, label in enumerate(ordered)]


@pytest.fixture
def photo(jpeg: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg)
    return path


@pytest.fixture
def expected(model_store: Path, jpeg: bytes) -> dict[str, float]:
    """The exported network's answer to ``jpeg`` in float32, in percent."""
    _, answer = reference.classify(model_store / "resnet101.pt", jpeg, top_k=5)
    return {prediction.label: 100 * prediction.probability for prediction in answer}


@pytest.mark.parametrize(
    ("precision", "changes", "agrees"),
    [
        ("float32", {}, True),
        ("float32", {"pug": 90.04}, True),
        ("float32", {"pug": 90.06}, False),
        ("float32", {"boxer": 0.24, "Siamese": 0.245}, False),  # another order
        ("bfloat16", {"pug": 91.9, "beagle": 4.1}, True),
        ("bfloat16", {"boxer": 0.24, "Siamese": 0.245}, True),
        ("bfloat16", {"pug": 87.9}, False),
        ("float16", {"beagle": 8.1}, False),
    ],
)
def test_each_precision_has_its_tolerance(
    precision: str,
    changes: dict[str, float],
    agrees: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = predictions(EXPECTED, **changes)
    assert verify.agrees("title", answer, EXPECTED, precision) is agrees
    assert ("differs" in capsys.readouterr().out) is not agrees


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_another_first_class_differs_however_near(
    precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    even = {"pug": 40.02, "beagle": 40.01, "boxer": 1.0}
    assert not verify.agrees("title", predictions(even, pug=40.0), even, precision)
    assert "beagle has this rank" in capsys.readouterr().out


def test_a_missing_class_counts_as_zero() -> None:
    answer = [*predictions(EXPECTED)[:4], Prediction(9, "tabby", 0.0005)]
    assert not verify.agrees("title", answer, EXPECTED, "float32")
    assert verify.agrees("title", answer, EXPECTED, "bfloat16")


def test_reference_equals_eager_pytorch_in_float32(
    model_store: Path, photographs: dict[str, Image.Image]
) -> None:
    buffer = io.BytesIO()
    photographs["chelsea"].save(buffer, "PNG")
    pt = model_store / "resnet101.pt"
    weights, answer = reference.classify(pt, buffer.getvalue(), top_k=3)
    assert weights == "untrained"
    inputs = ResNet101_Weights.IMAGENET1K_V1.transforms()(photographs["chelsea"])[None]
    with torch.inference_mode():
        logits = untrained(registered()["resnet101"])(inputs)
    probabilities, classes = logits[0].softmax(0).topk(3)
    assert [prediction.class_id for prediction in answer] == classes.tolist()
    # The two resizes differ by one 8-bit step in a few samples of the input.
    expected = pytest.approx(probabilities.tolist(), abs=2e-3)
    assert [prediction.probability for prediction in answer] == expected


def test_right_answer_in_bfloat16_agrees(
    model_store: Path, jpeg: bytes, expected: dict[str, float]
) -> None:
    pt = model_store / "resnet101.pt"
    _, answer = reference.classify(pt, jpeg, top_k=5, precision="bfloat16")
    assert verify.agrees("title", answer, expected, "bfloat16")
    assert not verify.agrees("title", answer, expected, "float32")  # or this test proves nothing


def test_reference_needs_a_whole_file(model_store: Path, tmp_path: Path) -> None:
    pt = tmp_path / "resnet101.pt"
    with pytest.raises(ServingError, match=str(pt)):
        reference.classify(pt, b"", top_k=1)
    pt.write_bytes((model_store / "resnet101.pt").read_bytes()[:10_000])
    with pytest.raises(ServingError, match=str(pt)):
        reference.classify(pt, b"", top_k=1)


def test_server_agrees_with_its_own_answer_and_names_its_precision(
    server: Running,
    model_store: Path,
    photo: Path,
    expected: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pt, description = model_store / "resnet101.pt", server.management.describe("resnet101")
    assert verify.check_classes(server.client, description, photo, pt, expected)
    printed = capsys.readouterr().out
    precision = description["precision"]
    assert f"photo.jpg, served in {precision}: " in printed
    assert ("resnet101.pt here in float32" in printed) is (precision != "float32")


def test_server_differs_from_another_answer(
    server: Running, model_store: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pt, description = model_store / "resnet101.pt", server.management.describe("resnet101")
    example = registered()["resnet101"].example
    assert example
    assert not verify.check_classes(server.client, description, photo, pt, example.expected)
    printed = capsys.readouterr().out
    assert "golden retriever" in printed
    assert "differs" in printed


def test_published_weights_are_needed(tool: Command, server: Running) -> None:
    run = tool("verify", "--config", server.config.path, "--run-dir", server.run.path)
    assert run.returncode == 1
    network = next(iter(registered().values()))
    assert network.example
    expected = (
        f"serves the weights untrained; the published answer needs {network.example.checkpoint}"
    )
    assert f"{network.name} {expected}" in run.stderr


class Served:
    """The management API of a server of both networks, one with the published weights."""

    def models(self) -> list[str]:
        return ["cyclegan", "resnet101", "mine"]

    def describe(self, name: str) -> dict[str, object]:
        network = registered()[name]
        assert network.example
        published = network.checkpoints[network.example.checkpoint].download.sha256
        weights = {"cyclegan": {"name": "mine.pth"}, "resnet101": {"sha256": published}}
        return {"name": name, "weights": weights[name]}


def test_other_weights_are_skipped(
    tmp_path: Path,
    make_config: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()
    run.write_state(Config.read(make_config(tmp_path, tmp_path)), ready=True)
    monkeypatch.setattr(Management, "of", lambda _: Served())
    compared: list[str] = []

    def check(_client: object, network: Network, *_: object) -> bool:
        compared.append(network.name)
        return True

    monkeypatch.setattr(verify, "check", check)
    assert verify.verify(run) == 0
    assert compared == ["resnet101"]
    assert capsys.readouterr().out.startswith("skipped: cyclegan serves the weights mine.pth")


def test_size_of_an_output_picture_is_checked(
    server: Running, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    example = registered()["cyclegan"].example
    assert example
    assert example.size
    description = server.management.describe("cyclegan")
    for height, good in ((1220, True), (1200, False)):
        picture = tmp_path / "coffee.jpg"
        photographs["coffee"].resize((1500, height)).save(picture)
        output = tmp_path / "output.png"
        assert (
            verify.check_picture(server.client, description, picture, output, example.size) is good
        )
        assert output.exists()


def test_no_server_answers(
    tool: Command, make_config: Callable[..., Path], tmp_path: Path, model_store: Path
) -> None:
    config = make_config(tmp_path, model_store)
    run = tool("verify", "--config", config, "--run-dir", tmp_path / "run")
    assert run.returncode == 1
    assert "is running: `make start RUN=" in run.stderr
    assert len(run.stderr.splitlines()) == 1
