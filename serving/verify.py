"""The book's two pictures and numbers against the running server.

"Deep Learning with PyTorch" (Stevens, Antiga, Viehmann; 2020), chapter 2.
"""

from __future__ import annotations

import requests

from export.errors import ExportError
from export.weights import default, fetch, pictures
from serving.api import Api
from serving.config import Config
from serving.errors import ServingError
from serving.runfolder import RunFolder
from vision_client import ConnectionFailed, VisionError

# Percent, of bobby.jpg through IMAGENET1K_V1 in float32.
BOOK = {
    "golden retriever": 96.2933,
    "Labrador retriever": 2.8081,
    "cocker spaniel": 0.2827,
    "redbone": 0.2086,
    "tennis ball": 0.1162,
}
TOLERANCE = 0.05  # percentage points
ZEBRA_SIZE = (316, 256)  # of horse.jpg, 1500x1220
TIMEOUT_S = 120


def verify(config: Config, run: RunFolder) -> int:
    """0 where the server gives the book's answers; ServingError where that cannot be told."""
    api = Api(config, run.key_file)
    try:
        for model in ("resnet101", "cyclegan"):
            _check_weights(api, model)
        bobby, horse = (fetch(picture).read_bytes() for picture in pictures())
        good = check_bobby(api, bobby)
        return 0 if check_horse(api, horse, run) and good else 1
    except ExportError as error:
        raise ServingError(str(error)) from error
    except (requests.ConnectionError, ConnectionFailed) as error:
        raise ServingError("no server answers: `make start` first") from error
    except VisionError as error:
        raise ServingError(str(error)) from error


def _check_weights(api: Api, model: str) -> None:
    book = default(model)
    weights = api.describe(model)["weights"]
    # TorchServe's management API leaves null values out.
    if weights.get("sha256") != book.sha256:
        raise ServingError(
            f"{model} serves the weights {weights['name']}; the book's numbers need {book.name}, "
            f"{book.file}: make export WEIGHTS=pretrained, then serve again"
        )


def check_bobby(api: Api, picture: bytes) -> bool:
    """Print what resnet101 says of ``picture`` beside the book's five; whether they agree."""
    with api.client(TIMEOUT_S) as client:
        predictions = client.classify(picture, top_k=len(BOOK)).predictions
    good = True
    print("bobby.jpg             served      book")
    for expected, got in zip(BOOK.items(), predictions, strict=True):
        percent = 100 * got.probability
        agrees = got.label == expected[0] and abs(percent - expected[1]) <= TOLERANCE
        good = good and agrees
        note = "" if agrees else f"   differs: the book has {expected[0]}"
        print(f"  {got.label:<18} {percent:8.4f}  {expected[1]:8.4f}{note}")
    return good


def check_horse(api: Api, picture: bytes, run: RunFolder) -> bool:
    """Keep the translation of ``picture`` in the run folder; whether it has the book's size."""
    with api.client(TIMEOUT_S) as client:
        zebra = client.translate(picture)
    path = run.path / "zebra.png"
    zebra.save(path)
    size = zebra.image().size
    good = size == ZEBRA_SIZE
    print(f"horse.jpg: {size[0]}x{size[1]} picture in {path}{'' if good else ', not 316x256'}")
    return good
