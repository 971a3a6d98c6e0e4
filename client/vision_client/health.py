"""Whether the server's networks truly answer, asked with the smallest of pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vision_client.answers import Answer, classification, translation
from vision_client.client import AsyncClient, Client
from vision_client.errors import VisionError
from vision_client.pictures import encoded


@dataclass(frozen=True)
class ModelHealth:
    """One network: it ``answers``, with which ``weights`` and in how many ``seconds``; or why not.

    ``weights`` is None over gRPC, too, which does not tell.
    """

    model: str
    answers: bool
    weights: str | None = None
    seconds: float | None = None
    error: str | None = None


def check_model(client: Client, model: str, task: str) -> ModelHealth:
    """Ask ``model`` for the cheapest answer of ``task``; an error is part of the result."""
    decode = {"classify": classification, "translate": translation}[task]
    options = {"classify": {"top_k": "1"}, "translate": {"size": "64"}}[task]
    try:
        return _well(model, decode(client._ask(model, encoded(_picture()), options), 0.0))
    except VisionError as error:
        return _ill(model, error)


def check(client: Client) -> list[ModelHealth]:
    """Both networks, one after the other; an error is part of what is told, never raised."""
    found = []
    for model, ask in _QUESTIONS.items():
        try:
            found.append(_well(model, ask(client)))
        except VisionError as error:
            found.append(_ill(model, error))
    return found


async def check_async(client: AsyncClient) -> list[ModelHealth]:
    """As ``check``, both at once."""

    async def one(model: str, ask: Callable[[AsyncClient], Any]) -> ModelHealth:
        try:
            return _well(model, await ask(client))
        except VisionError as error:
            return _ill(model, error)

    return await asyncio.gather(*(one(model, ask) for model, ask in _QUESTIONS.items()))


_QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "resnet101": lambda client: client.classify(_picture(), top_k=1),
    "cyclegan": lambda client: client.translate(_picture(), size=64),
}


def _picture() -> Image.Image:
    return Image.new("RGB", (64, 64), "gray")


def _well(model: str, answer: Answer) -> ModelHealth:
    return ModelHealth(model, True, weights=answer.weights, seconds=answer.seconds)


def _ill(model: str, error: VisionError) -> ModelHealth:
    return ModelHealth(model, False, error=str(error))
