"""Tasks turn a network's output into an answer; one module each.

A module defines ``TASK``, a class that implements ``Task``. It does not import torch, so that
programs without torch can read the options. Nothing else of a worker names a task.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Protocol

from PIL import Image

from handlers.metadata import Output, Spec
from handlers.request import Answer, Message, Offer, Request

if TYPE_CHECKING:
    import torch


class Task(Protocol):
    """``output`` is the kind of output that the task answers with, ``offer`` lists formats and
    options; ``canary_options`` are those of the canary request.
    """

    output: ClassVar[Output]
    offer: Offer
    canary_options: Mapping[str, str]

    def __init__(self, spec: Spec) -> None: ...

    def answer(self, output: torch.Tensor, request: Request) -> Answer:
        """The answer to ``request``. ``output`` is float32 on the CPU, without a batch axis."""


def load(spec: Spec) -> Task:
    """The task of ``spec``. Raises ImportError if this copy of the package does not contain it."""
    task: Task = find(spec.task)(spec)
    return task


def find(name: str) -> type[Task]:
    """The task ``name``. Raises ImportError if this copy of the package does not contain it."""
    task: type[Task] = import_module(f"handlers.tasks.{name}").TASK
    return task


def shortest(values: torch.Tensor) -> list[float]:
    """float32 ``values`` as floats whose text is the shortest that reads back as the same float32.

    Python prints 17 digits of a float32, of which 9 at most mean something.
    """
    numbers: list[float] = values.numpy().astype(str).astype(float).tolist()
    return numbers


def canary(task: Task) -> Message:
    """The cheapest request that uses every part of a worker."""
    headers = {f"x-{name.replace('_', '-')}": text for name, text in task.canary_options.items()}
    return Message(headers, canary_picture())


def canary_picture() -> bytes:
    """A small picture file."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "gray").save(buffer, "PNG")
    return buffer.getvalue()
