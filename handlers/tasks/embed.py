"""Embedding: a picture as a vector of features, for search, clustering or another classifier."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from handlers.metadata import Output, Spec
from handlers.request import Answer, Offer, Request, Switch
from handlers.tasks import shortest

if TYPE_CHECKING:
    import torch

FORMATS = {
    "json": "application/json",
    "npy": "application/x-npy",
    "f32": "application/octet-stream",
}


class Embed:
    """``{"embedding": [...]}``, or the same vector as a .npy file or as little-endian float32.

    With ``normalize``, it is divided by its length, so that the dot product of two is their cosine.
    """

    output: ClassVar[Output] = "features"

    def __init__(self, _: Spec) -> None:
        self.offer = Offer(FORMATS, {"normalize": Switch()})
        self.canary_options = {"format": "npy"}

    def answer(self, output: torch.Tensor, request: Request) -> Answer:
        """``output`` is ``(features,) float32``. A vector of zeros has no direction: it stays."""
        length = output.double().norm()  # the squares of large features overflow in float32
        if request.options["normalize"] and length > 0:
            output = output / length
        return Answer(_encoded(output, request.format), self.offer.formats[request.format])


def _encoded(vector: torch.Tensor, name: str) -> bytes:
    if name == "json":
        return json.dumps({"embedding": shortest(vector)}).encode()
    array = vector.numpy().astype("<f4")
    if name == "f32":
        return array.tobytes()
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


TASK = Embed
