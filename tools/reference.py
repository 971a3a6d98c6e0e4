"""Runs an exported classifier in this process, for the answer that a server should give."""

from __future__ import annotations

import json
from pathlib import Path

from handlers.errors import LoadError, RequestError
from handlers.request import Message
from handlers.service import Service
from handlers.settings import Settings
from serving.errors import ServingError
from vision_client import Prediction


def classify(
    pt: Path, picture: bytes, *, top_k: int, precision: str = "float32"
) -> tuple[str, list[Prediction]]:
    """The name of the weights in ``pt``, and its ``top_k`` classes of ``picture``, best first.

    Runs the code of the workers on the CPU. ServingError if ``pt`` is missing or damaged.
    """
    try:
        service = Service(pt, settings=Settings(precision=precision))
    except LoadError as error:
        raise ServingError(f"{pt}: {error}") from error
    try:
        [answer] = service.answer([Message({"x-top-k": str(top_k)}, picture)])
    finally:
        service.close()
    if isinstance(answer, RequestError):
        raise ServingError(f"the picture cannot be classified: {answer.message}")
    predictions = [Prediction(**fields) for fields in json.loads(answer.body)["predictions"]]
    return service.metadata.weights.name, predictions
