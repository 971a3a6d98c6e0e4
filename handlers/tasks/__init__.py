"""What a network's output means to a client: one module per task.

A module defines ``TASK``, a class as ``Task`` describes it. No torch import: serving reads the
options and the canary too.
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
    """``offer`` is what a request may ask for; ``canary_options`` make the cheapest request."""

    offer: Offer
    canary_options: Mapping[str, str]

    def __init__(self, spec: Spec) -> None: ...

    def answer(self, output: torch.Tensor, request: Request) -> Answer:
        """One row of the network's output, float32 on the CPU -> the answer to ``request``."""


def load(spec: Spec) -> Task:
    """The task of the network that ``spec`` describes; ImportError if this copy lacks it."""
    task: Task = import_module(f"handlers.tasks.{spec.task}").TASK(spec)
    return task


def canary(task: Task) -> Message:
    """The cheapest request that uses every part of a worker; it must be answered with 200."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "gray").save(buffer, "PNG")
    headers = {f"x-{name.replace('_', '-')}": text for name, text in task.canary_options.items()}
    return Message(headers, buffer.getvalue())
