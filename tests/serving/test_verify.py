"""`make verify` without the book's weights: other numbers in the book's place, and its refusals."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.models import ResNet101_Weights

from export import untrained
from serving import verify
from serving.errors import ServingError
from serving.reference import Reference
from serving.runfolder import RunFolder
from vision_client import Prediction

BOOK = {"pug": 90.0, "beagle": 6.0, "boxer": 0.3, "Siamese": 0.2, "Persian": 0.1}


def predictions(book: Mapping[str, float], **changes: float) -> list[Prediction]:
    """``book`` as an answer, best first, with the percents of ``changes``."""
    percents = {**book, **changes}
    ordered = sorted(percents, key=lambda label: -percents[label])
    return [Prediction(i, label, percents[label] / 100) for i, label in enumerate(ordered)]


@pytest.fixture
def book(model_store: Path, jpeg: bytes) -> dict[str, float]:
    """What the exported network says of ``jpeg`` in float32, in percent."""
    found = Reference(model_store / "resnet101.pt").classify(jpeg, top_k=5)
    return {prediction.label: 100 * prediction.probability for prediction in found}


@pytest.mark.parametrize(
    ("precision", "changes", "expected"),
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
    expected: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verify.agrees("title", predictions(BOOK, **changes), BOOK, precision) is expected
    assert ("differs" in capsys.readouterr().out) is not expected


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_another_first_class_differs_however_near(
    precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    even = {"pug": 40.02, "beagle": 40.01, "boxer": 1.0}
    assert not verify.agrees("title", predictions(even, pug=40.0), even, precision)
    assert "beagle has this rank" in capsys.readouterr().out


def test_a_class_that_is_not_among_the_found_counts_as_nothing() -> None:
    found = [*predictions(BOOK)[:4], Prediction(9, "tabby", 0.0005)]
    assert not verify.agrees("title", found, BOOK, "float32")
    assert verify.agrees("title", found, BOOK, "bfloat16")


def test_reference_is_eager_in_float32(
    model_store: Path, jpeg: bytes, photographs: dict[str, Image.Image]
) -> None:
    buffer = io.BytesIO()
    photographs["chelsea"].save(buffer, "PNG")
    found = Reference(model_store / "resnet101.pt").classify(buffer.getvalue(), top_k=3)
    inputs = ResNet101_Weights.IMAGENET1K_V1.transforms()(photographs["chelsea"])[None]
    with torch.inference_mode():
        logits = untrained.build("resnet101", 1000, seed=0)(inputs)
    probabilities, classes = logits[0].softmax(0).topk(3)
    assert [prediction.class_id for prediction in found] == classes.tolist()
    # One 8-bit step in a few samples of the input separates the two resizes.
    expected = pytest.approx(probabilities.tolist(), abs=2e-3)
    assert [prediction.probability for prediction in found] == expected


def test_right_answer_in_bfloat16_agrees(
    model_store: Path, jpeg: bytes, book: dict[str, float]
) -> None:
    found = Reference(model_store / "resnet101.pt", "bfloat16").classify(jpeg, top_k=5)
    assert verify.agrees("title", found, book, "bfloat16")
    assert not verify.agrees("title", found, book, "float32")  # or this test shows nothing


def test_reference_needs_a_whole_file(model_store: Path, tmp_path: Path) -> None:
    pt = tmp_path / "resnet101.pt"
    with pytest.raises(ServingError, match=str(pt)):
        Reference(pt)
    pt.write_bytes((model_store / "resnet101.pt").read_bytes()[:10_000])
    with pytest.raises(ServingError, match=str(pt)):
        Reference(pt)


def test_server_agrees_with_its_own_numbers_and_names_its_precision(
    server: Any,
    model_store: Path,
    jpeg: bytes,
    book: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verify.check_bobby(
        server.management, server.client, jpeg, model_store / "resnet101.pt", book
    )
    said = capsys.readouterr().out
    precision = server.management.describe("resnet101")["precision"]
    assert f"bobby.jpg, served in {precision}: " in said
    assert ("resnet101.pt here in float32" in said) is (precision != "float32")


def test_server_differs_from_other_numbers(
    server: Any, model_store: Path, jpeg: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not verify.check_bobby(
        server.management, server.client, jpeg, model_store / "resnet101.pt", verify.BOOK
    )
    said = capsys.readouterr().out
    assert "golden retriever" in said
    assert "differs" in said


def test_published_weights_are_needed(serving: Any, server: Any) -> None:
    run = serving("verify", "--config", server.config.path, "--run-dir", server.run.path)
    assert run.returncode == 1
    assert (
        "resnet101 serves the weights untrained; the book's numbers need IMAGENET1K_V1"
        in run.stderr
    )


def test_zebra_is_measured(
    server: Any, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    pictures = []
    for size in ((1500, 1220), (1500, 1200)):
        buffer = io.BytesIO()
        photographs["coffee"].resize(size).save(buffer, "JPEG")
        pictures.append(buffer.getvalue())
    assert verify.check_horse(server.management, server.client, pictures[0], RunFolder(tmp_path))
    assert not verify.check_horse(
        server.management, server.client, pictures[1], RunFolder(tmp_path)
    )


def test_no_server_answers(
    serving: Any, make_config: Any, tmp_path: Path, model_store: Path
) -> None:
    config = make_config(tmp_path, model_store)
    run = serving("verify", "--config", config, "--run-dir", tmp_path / "run")
    assert run.returncode == 1
    assert "no server answers: `make start` first" in run.stderr
