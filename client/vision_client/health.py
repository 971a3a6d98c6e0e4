"""A canary: does a model answer a small picture?"""

from __future__ import annotations

from dataclasses import dataclass

from vision_client.client import Client
from vision_client.errors import VisionError
from vision_client.tasks import DECODERS

# A gray PNG of 64x64 pixels.
CANARY = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000400000004008000000008f022e020000002b49444154"
    "78daedcc311100000804a0d7e44637849b0701a8c94d4720100804028140201008040281c1f3600140"
    "740100aca9a5640000000049454e44ae426082"
)


@dataclass(frozen=True)
class ModelHealth:
    """``model`` answered with ``weights`` after ``seconds``, or ``error`` says why it did not.

    ``weights`` is None over gRPC, which does not report them.
    """

    model: str
    answers: bool
    weights: str | None = None
    seconds: float | None = None
    error: str | None = None


def check_model(client: Client, model: str, task: str) -> ModelHealth:
    """Ask ``model`` for the cheapest answer of ``task``, a key of DECODERS.

    An error is part of the result and is not raised. ``client`` determines the timeout and the
    number of attempts.
    """
    decoder = DECODERS[task]
    try:
        answer = client.ask(decoder, CANARY, model, **decoder.canary)
    except VisionError as error:
        return ModelHealth(model, False, error=str(error))
    return ModelHealth(model, True, weights=answer.weights, seconds=answer.seconds)
