"""Compares the running server with published answers to published pictures: ``make verify``.

Published probabilities are those of float32. If the server runs a network in another precision, its
answer is compared with the tolerance of that precision, and the exported network is also run here,
in float32.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from export.errors import ExportError
from export.weights import Checkpoint, fetch, pictures, published
from serving.config import Config
from serving.errors import ServingError
from serving.inference import connect
from serving.management import Management
from serving.runfolder import RunFolder
from tools import server
from vision_client import Client, ConnectionFailed, Prediction, VisionError

# Percentage points by which a probability may differ, by precision. Between machines, float32
# differs only by rounding. A reduced precision may swap the first two classes if their
# probabilities are within 2 percentage points (MARGIN in export/gate.py), so each may differ by 2.
TOLERANCE = {"float32": 0.05, "bfloat16": 2.0, "float16": 2.0}
TIMEOUT_S = 120


@dataclass(frozen=True)
class Example:
    """A picture, the weights that the answer was published for, and the answer.

    ``expected`` is percent by label, the most probable first; ``size`` is (width, height).
    """

    picture: Checkpoint
    checkpoint: Checkpoint
    expected: Mapping[str, float]
    size: tuple[int, int] | None = None


def examples() -> dict[str, Example]:
    """By network. From "Deep Learning with PyTorch" (Stevens, Antiga, Viehmann; 2020), ch. 2."""
    bobby, horse = pictures()
    expected = {
        "golden retriever": 96.2933,
        "Labrador retriever": 2.8081,
        "cocker spaniel": 0.2827,
        "redbone": 0.2086,
        "tennis ball": 0.1162,
    }
    weights = [next(iter(published(name).values())) for name in ("resnet101", "cyclegan")]
    return {
        "resnet101": Example(bobby, weights[0], expected),
        "cyclegan": Example(horse, weights[1], {}, (316, 256)),
    }


def verify(config: Config, run: RunFolder) -> int:
    """0 if the answers are the published ones, else 1; ServingError if they cannot be compared."""
    management = Management(config, run)
    try:
        models = management.models()
        served = {model: example for model, example in examples().items() if model in models}
        descriptions = {model: management.describe(model) for model in served}
        for model, example in served.items():
            check_weights(descriptions[model], example.checkpoint)
        good = True
        with connect(config, run, timeout=TIMEOUT_S) as client:
            for model, example in served.items():
                description, picture = descriptions[model], fetch(example.picture)
                if example.size is None:
                    pt = config.model_store / f"{model}.pt"
                    same = check_classes(client, description, picture, pt, example.expected)
                else:
                    output = run.path / f"{model}.png"
                    same = check_picture(client, description, picture, output, example.size)
                good = good and same
        return 0 if good else 1
    except ExportError as error:
        raise ServingError(str(error)) from error
    except (requests.ConnectionError, ConnectionFailed) as error:
        raise ServingError("no server answers: `make start` first") from error
    except VisionError as error:
        raise ServingError(str(error)) from error


def check_weights(description: Mapping[str, Any], published: Checkpoint) -> None:
    """ServingError unless the model of ``description`` serves the ``published`` checkpoint."""
    model, weights = description["name"], description["weights"]
    # TorchServe's management API leaves null values out.
    if weights.get("sha256") != published.sha256:
        raise ServingError(
            f"{model} serves the weights {weights['name']}; the published answer needs "
            f"{published.name}, {published.file}: make export WEIGHTS=pretrained, then serve again"
        )


def check_classes(
    client: Client,
    description: Mapping[str, Any],
    picture: Path,
    pt: Path,
    expected: Mapping[str, float],
) -> bool:
    """Whether a model gives ``expected`` for ``picture``, served and in float32; prints both.

    ``pt`` is the exported network, which is run here unless the server runs it in float32.
    ``expected`` is percent by label, the most probable first.
    """
    precision = description["precision"]
    data = picture.read_bytes()
    answer = client.classify(data, model=description["name"], top_k=len(expected)).predictions
    good = agrees(f"{picture.name}, served in {precision}", answer, expected, precision)
    if precision == "float32":
        return good
    from tools import reference  # imports torch

    weights, local = reference.classify(pt, data, top_k=len(expected))
    if weights != description["weights"]["name"]:
        raise ServingError(
            f"{pt} has the weights {weights}, the server has {description['weights']['name']}: "
            "serve again"
        )
    return agrees(f"{picture.name}, {pt.name} here in float32", local, expected, "float32") and good


def agrees(
    title: str, answer: Sequence[Prediction], expected: Mapping[str, float], precision: str
) -> bool:
    """Whether ``answer`` agrees with ``expected`` within the tolerance; prints them side by side.

    Every label's percent must be within TOLERANCE; a label missing in ``answer`` counts as 0. The
    first class must be the same; in float32, all classes in the same order.
    """
    percents = {prediction.label: 100 * prediction.probability for prediction in answer}
    ranks = len(expected) if precision == "float32" else 1
    good = True
    print(f"{title}: percent, may differ by {TOLERANCE[precision]:g}")
    print(f"  {'':<20} {'answer':>8} {'expected':>8}")
    for rank, ((label, wanted), prediction) in enumerate(
        zip(expected.items(), answer, strict=True)
    ):
        percent = percents.get(label, 0.0)
        same = abs(percent - wanted) <= TOLERANCE[precision]
        note = "" if same else "   differs"
        if rank < ranks and prediction.label != label:
            same, note = False, f"   differs: {prediction.label} has this rank"
        good = good and same
        print(f"  {label:<20} {percent:8.4f} {wanted:8.4f}{note}")
    return good


def check_picture(
    client: Client,
    description: Mapping[str, Any],
    picture: Path,
    output: Path,
    size: tuple[int, int],
) -> bool:
    """Save the translation of ``picture`` as ``output``; whether it has ``size``."""
    translation = client.translate(picture, model=description["name"])
    translation.save(output)
    width, height = translation.image().size
    good = (width, height) == size
    note = "" if good else f", not {size[0]}x{size[1]}"
    precision = description["precision"]
    print(f"{picture.name}, served in {precision}: {width}x{height} picture in {output}{note}")
    return good


def main() -> int:
    return server.run(verify, server.parser("tools.verify", __doc__).parse_args())


if __name__ == "__main__":
    sys.exit(main())
