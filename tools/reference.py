"""Runs an exported classifier in this process, for the answers that a server should give."""

from __future__ import annotations

from pathlib import Path

import torch

from handlers.network.engine import LoadError, Network
from handlers.pictures.decode import decode
from handlers.pictures.resample import resample
from handlers.preprocess import to_pixels
from serving.errors import ServingError
from vision_client import Prediction


class Reference:
    """The network in ``pt`` on the CPU, with the preprocessing of the workers.

    ``weights`` is their name as in the header x-model-weights. Raises ServingError if ``pt`` is
    missing or damaged.
    """

    def __init__(self, pt: Path, precision: str = "float32") -> None:
        try:
            self._network = Network(pt, torch.device("cpu"), precision)
        except LoadError as error:
            raise ServingError(f"{pt}: {error}") from error
        self.weights: str = self._network.metadata["weights"]["name"]

    def classify(self, picture: bytes, top_k: int) -> list[Prediction]:
        """The ``top_k`` most probable classes of an encoded picture, best first."""
        spec = self._network.spec
        pixels = to_pixels(resample(spec, decode(picture, resize=spec.resize)))
        with torch.inference_mode():
            output = self._network(self._network.preprocess([pixels]))[0]
        probabilities, classes = output.softmax(dim=0).topk(top_k)
        return [
            Prediction(i, spec.labels[i], probability)
            for i, probability in zip(classes.tolist(), probabilities.tolist(), strict=True)
        ]
