"""An exported classifier in this process, without a server: what a server's answers should be."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from handlers.errors import LoadError, RequestError
from handlers.request import Message
from handlers.service import Service
from handlers.settings import Settings
from serving.errors import ServingError
from vision_client import Prediction


class Reference:
    """The network in ``pt`` on the CPU, with the code of the workers.

    ``weights`` is its name as in the header x-model-weights. Raises ServingError if ``pt`` is
    missing or damaged.
    """

    def __init__(self, pt: Path, precision: str = "float32") -> None:
        try:
            self._service = Service(pt, torch.device("cpu"), Settings(precision=precision))
        except LoadError as error:
            raise ServingError(f"{pt}: {error}") from error
        self.weights = self._service.metadata.weights.name

    def classify(self, picture: bytes, top_k: int) -> list[Prediction]:
        """The ``top_k`` most probable classes of an encoded picture, best first."""
        [answer] = self._service.answer([Message({"x-top-k": str(top_k)}, picture)])
        if isinstance(answer, RequestError):
            raise ServingError(f"the picture cannot be classified: {answer.message}")
        return [Prediction(**p) for p in json.loads(answer.body)["predictions"]]
