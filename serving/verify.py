"""The book's two pictures and numbers against the running server.

"Deep Learning with PyTorch" (Stevens, Antiga, Viehmann; 2020), chapter 2. Its numbers are
those of float32. Where the server runs ResNet-101 in another precision, its answer is compared with
that precision's tolerance, and the exported network is compared in float32 too, in this process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import requests

from export.errors import ExportError
from export.weights import default, fetch, pictures
from serving.config import Config
from serving.errors import ServingError
from serving.inference import connect
from serving.management import Management
from serving.runfolder import RunFolder
from vision_client import Client, ConnectionFailed, Prediction, VisionError

# Percent, of bobby.jpg through IMAGENET1K_V1 in float32.
BOOK = {
    "golden retriever": 96.2933,
    "Labrador retriever": 2.8081,
    "cocker spaniel": 0.2827,
    "redbone": 0.2086,
    "tennis ball": 0.1162,
}
# Percentage points that a probability may be off, by precision. float32 differs between machines by
# rounding alone. In a reduced precision the first class may change where two probabilities are
# within 2 percentage points (MARGIN in export/gate.py), so each may be off by as much.
TOLERANCE = {"float32": 0.05, "bfloat16": 2.0, "float16": 2.0}
ZEBRA_SIZE = (316, 256)  # of horse.jpg, 1500x1220
TIMEOUT_S = 120


def verify(config: Config, run: RunFolder) -> int:
    """0 where the server gives the book's answers; ServingError where that cannot be told."""
    management = Management(config, run)
    try:
        for model in ("resnet101", "cyclegan"):
            _check_weights(management, model)
        bobby, horse = (fetch(picture).read_bytes() for picture in pictures())
        pt = config.model_store / "resnet101.pt"
        with connect(config, run, timeout=TIMEOUT_S) as client:
            good = check_bobby(management, client, bobby, pt, BOOK)
            return 0 if check_horse(management, client, horse, run) and good else 1
    except ExportError as error:
        raise ServingError(str(error)) from error
    except (requests.ConnectionError, ConnectionFailed) as error:
        raise ServingError("no server answers: `make start` first") from error
    except VisionError as error:
        raise ServingError(str(error)) from error


def _check_weights(management: Management, model: str) -> None:
    book = default(model)
    weights = management.describe(model)["weights"]
    # TorchServe's management API leaves null values out.
    if weights.get("sha256") != book.sha256:
        raise ServingError(
            f"{model} serves the weights {weights['name']}; the book's numbers need {book.name}, "
            f"{book.file}: make export WEIGHTS=pretrained, then serve again"
        )


def check_bobby(
    management: Management, client: Client, picture: bytes, pt: Path, book: Mapping[str, float]
) -> bool:
    """Whether resnet101 agrees with ``book`` on ``picture``, served and in float32; prints both.

    ``pt`` is the exported network, which is run here where the server does not run in float32.
    ``book`` has percent by label, the most probable first.
    """
    about = management.describe("resnet101")
    precision = about["precision"]
    served = client.classify(picture, top_k=len(book)).predictions
    good = agrees(f"bobby.jpg, served in {precision}", served, book, precision)
    if precision == "float32":
        return good
    from serving.reference import Reference  # imports torch, which no other command here needs

    reference = Reference(pt)
    if reference.weights != about["weights"]["name"]:
        raise ServingError(
            f"{pt} has the weights {reference.weights}, the server {about['weights']['name']}: "
            "serve again"
        )
    found = reference.classify(picture, top_k=len(book))
    return agrees(f"bobby.jpg, {pt.name} here in float32", found, book, "float32") and good


def agrees(
    title: str, found: Sequence[Prediction], book: Mapping[str, float], precision: str
) -> bool:
    """Print ``found`` beside ``book``; whether they agree as well as ``precision`` allows.

    Every label's percent must be within TOLERANCE, where one that was not found counts as 0. The
    first class must be the same, and in float32 all of them, in this order.
    """
    percents = {prediction.label: 100 * prediction.probability for prediction in found}
    ranks = len(book) if precision == "float32" else 1
    good = True
    print(f"{title}: percent, {TOLERANCE[precision]:g} off at most")
    print(f"  {'':<20} {'found':>8} {'book':>8}")
    for rank, ((label, expected), prediction) in enumerate(zip(book.items(), found, strict=True)):
        percent = percents.get(label, 0.0)
        same = abs(percent - expected) <= TOLERANCE[precision]
        note = "" if same else "   differs"
        if rank < ranks and prediction.label != label:
            same, note = False, f"   differs: {prediction.label} has this rank"
        good = good and same
        print(f"  {label:<20} {percent:8.4f} {expected:8.4f}{note}")
    return good


def check_horse(management: Management, client: Client, picture: bytes, run: RunFolder) -> bool:
    """Keep the translation of ``picture`` in the run folder; whether it has the book's size."""
    precision = management.describe("cyclegan")["precision"]
    zebra = client.translate(picture)
    path = run.path / "zebra.png"
    zebra.save(path)
    size = zebra.image().size
    good = size == ZEBRA_SIZE
    note = "" if good else ", not 316x256"
    print(f"horse.jpg, served in {precision}: {size[0]}x{size[1]} picture in {path}{note}")
    return good
