"""The client's tasks have the options of the server's tasks."""

from __future__ import annotations

import dataclasses

import pytest

from export.networks import registered
from handlers.request import Offer
from handlers.tasks import Task, load
from vision_client.tasks import DECODERS
from vision_client.tasks.classify import TOP_K
from vision_client.tasks.decoder import Range
from vision_client.tasks.translate import FORMATS, QUALITY, SIZE

CLASSES = 1000


def served(task: str) -> Task:
    """``task`` as the bundle's network has it."""
    (spec,) = (n.spec() for n in registered().values() if n.task == task)
    return load(dataclasses.replace(spec, labels=tuple(map(str, range(CLASSES)))))


def ranges(offer: Offer) -> dict[str, Range]:
    return {name: Range(**dataclasses.asdict(option)) for name, option in offer.integers.items()}


@pytest.mark.parametrize("task", DECODERS)
def test_the_canary_is_the_servers(task: str) -> None:
    canary = {name: str(value) for name, value in DECODERS[task].canary.items()}
    assert canary == served(task).canary_options


def test_ranges_and_formats() -> None:
    assert ranges(served("classify").offer) == {"top_k": dataclasses.replace(TOP_K, high=CLASSES)}
    offer = served("translate").offer
    assert ranges(offer) == {"size": SIZE, "quality": QUALITY}
    assert tuple(offer.formats) == FORMATS
