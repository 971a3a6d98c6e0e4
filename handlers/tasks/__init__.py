"""Tasks turn a network's output into an answer; one module each.

A module defines ``TASK``, a class that implements ``Task``. It does not import torch, so that
programs without torch can read the options.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from handlers.metadata import Spec
from handlers.request import Answer, Message, Offer, Request

if TYPE_CHECKING:
    import torch


class Task(Protocol):
    """``offer`` lists formats and options; ``canary_options`` are those of the canary request."""

    offer: Offer
    canary_options: Mapping[str, str]

    def __init__(self, spec: Spec) -> None: ...

    def answer(self, output: torch.Tensor, request: Request) -> Answer:
        """The answer to ``request``. ``output`` is float32 on the CPU, without a batch axis."""


def load(spec: Spec) -> Task:
    """The task of ``spec``. Raises ImportError if this copy of the package does not contain it."""
    task: Task = import_module(f"handlers.tasks.{spec.task}").TASK(spec)
    return task


def canary(task: Task) -> Message:
    """The cheapest request that uses every part of a worker."""
    headers = {f"x-{name.replace('_', '-')}": text for name, text in task.canary_options.items()}
    return Message(headers, canary_picture())


def canary_picture() -> bytes:
    """A small picture file."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "gray").save(buffer, "PNG")
    return buffer.getvalue()
