"""The client's tasks have the options of the server's tasks."""

from __future__ import annotations

import dataclasses

import pytest

from export.network import TASKS
from export.networks import find
from handlers.request import Offer
from handlers.tasks import Task, load
from vision_client.tasks import DECODERS
from vision_client.tasks.classify import TOP_K
from vision_client.tasks.decoder import Range
from vision_client.tasks.embed import FORMAT
from vision_client.tasks.translate import FORMATS, QUALITY, SIZE

CLASSES = 1000


def served(task: str) -> Task:
    """``task`` as a network of the bundle has it."""
    spec = find("cyclegan" if task == "translate" else "resnet101", task).spec()
    return load(dataclasses.replace(spec, labels=tuple(map(str, range(CLASSES)))))


def ranges(offer: Offer) -> dict[str, Range]:
    return {name: Range(**dataclasses.asdict(option)) for name, option in offer.integers.items()}


@pytest.mark.parametrize("task", DECODERS)
def test_the_canary_is_the_servers(task: str) -> None:
    canary = {name: str(value) for name, value in DECODERS[task].canary.items()}
    assert canary == served(task).canary_options


def test_ranges_and_formats() -> None:
    assert ranges(served("classify").offer) == {"top_k": dataclasses.replace(TOP_K, high=CLASSES)}
    assert ranges(served("embed").offer) == {"normalize": Range(default=0, low=0, high=1)}
    assert FORMAT in served("embed").offer.formats
    offer = served("translate").offer
    assert ranges(offer) == {"size": SIZE, "quality": QUALITY}
    assert tuple(offer.formats) == FORMATS


def test_every_task_has_a_decoder() -> None:
    assert sorted(DECODERS) == list(TASKS)
