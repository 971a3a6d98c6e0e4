"""Serves one network: answers batches of requests. Works without a server too:

>>> service = Service(Path("classifier.pt"))
>>> [answer] = service.answer([Message(body=Path("dog.jpg").read_bytes())])
>>> service.close()
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from handlers import tasks
from handlers.errors import LoadError, RequestError, TooLarge, attempt
from handlers.network.batches import infer
from handlers.network.engine import Engine
from handlers.pictures.pool import DecodePool, Encoded, Pixels
from handlers.request import Answer, Message, Request, parse
from handlers.settings import Settings
from handlers.stages import Stages

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
# Seconds after the start of a batch. Pictures whose decoding has not begun by then get a 503.
# Eight of the slowest valid pictures take 9 s on two processes.
DECODE_BEGIN_S = 20
# Requests of a batch on a line of the log, which TorchServe cuts after 2000 characters. An id has
# at most 128.
_LOGGED_AT_ONCE = 12


class Service:
    """A loaded network with its decode processes.

    ``batch_size`` is the largest batch to prepare for; ``decode_seconds`` limits the decoding of a
    batch, and pictures that have not begun by half of it are answered 503. Raises LoadError if the
    network cannot be served on this machine. Requests leave no state on ``self``.
    """

    def __init__(
        self,
        artefact: Path,
        device: torch.device = CPU,
        settings: Settings | None = None,
        *,
        batch_size: int = 1,
        decode_seconds: float = 60,
    ) -> None:
        started = time.perf_counter()
        self.settings = settings or Settings()
        self.engine = Engine(artefact, device, self.settings.precision, self.settings.engine)
        self.metadata = self.engine.metadata
        self.task = tasks.load(self.metadata.spec)
        self._decode_seconds = decode_seconds
        # One decode process per thread of the network, because these are the worker's cores.
        processes = min(batch_size, torch.get_num_threads())
        self.pool = DecodePool(self.metadata.spec, self.settings.limits, processes)
        try:
            self.pool.wait_until_ready(tasks.canary_picture())
            self.engine.warm_up(batch_size)
            self._check_canary()
        except BaseException:
            self.pool.close()
            raise
        logger.info(
            "%s on %s in %s (%s), run by %s (%s): ready in %.1f s",
            self.metadata.name,
            device,
            self.engine.precision,
            self.engine.precision_reason,
            self.engine.name,
            self.engine.reason,
            time.perf_counter() - started,
        )

    def answer(
        self, messages: Sequence[Message | RequestError], stages: Stages | None = None
    ) -> list[Answer | RequestError]:
        """Answer a batch of messages; an error affects only its own message.

        Errors in ``messages`` are returned unchanged. Times and pixels are added to ``stages``.
        """
        stages = stages or Stages()
        ids = [message.id if isinstance(message, Message) else "-" for message in messages]
        started = time.monotonic()
        start_by = started + min(DECODE_BEGIN_S, self._decode_seconds / 2)
        with stages("decode"):
            requests = [
                attempt(parse, message, self.task.offer, self.settings.limits)
                for message in messages
            ]
            pictures = self.pool.decode_all(
                [attempt(_encoded, request) for request in requests],
                start_by,
                started + self._decode_seconds,
            )
            # Decoded base64 is no longer needed: free it before the network runs.
            requests = [attempt(_without_picture, request) for request in requests]
        stages.pixels += sum(p.size[0] * p.size[1] for p in pictures if isinstance(p, Pixels))
        outputs = infer(self.engine, pictures, self._pixels_at_once, stages)
        with stages("encode"):
            answers = [
                attempt(self._encode, output, request)
                for output, request in zip(outputs, requests, strict=True)
            ]
        outcomes = list(map(_outcome, ids, answers))
        for i in range(0, len(outcomes), _LOGGED_AT_ONCE):
            logged = ", ".join(outcomes[i : i + _LOGGED_AT_ONCE])
            logger.info("batch of %d: %s; %s", len(messages), logged, stages)
        return answers

    def describe(self) -> dict[str, Any]:
        """The metadata of the artefact, and how it is served: device, precision, limits, ..."""
        return {
            **self.metadata.to_map(),
            "device": str(self.engine.device),
            "precision": self.engine.precision,
            "precision_reason": self.engine.precision_reason,
            "engine": self.engine.name,
            "engine_reason": self.engine.reason,
            "limits": dataclasses.asdict(self.settings.limits),
            "sandbox": self.pool.sandbox,
        }

    def close(self) -> None:
        """End the decode processes. They also end with this process."""
        self.pool.close()

    def _check_canary(self) -> None:
        """Raise LoadError unless the canary request is answered."""
        [answer] = self.answer([tasks.canary(self.task)])
        # TooLarge is fine: the configured limits may be below the network's input size.
        if isinstance(answer, RequestError) and not isinstance(answer, TooLarge):
            raise LoadError(f"{self.metadata.name} does not answer: {answer.message}")

    @property
    def _pixels_at_once(self) -> int:
        """The most input pixels per batch: as many as the largest allowed picture has, or fewer."""
        pixels = self.settings.limits.network_pixels
        if self.engine.device.type == "cpu":
            pixels = min(pixels, self.settings.cpu_batch_pixels or sys.maxsize)
        return pixels

    def _encode(self, output: torch.Tensor, request: Request | RequestError) -> Answer:
        assert isinstance(request, Request)  # an error would have no output
        return self.task.answer(output, request)


def _outcome(id: str, answer: Answer | RequestError) -> str:
    """For the log: the request's id, and "ok" or its error."""
    return f"{id} {type(answer).__name__ if isinstance(answer, RequestError) else 'ok'}"


def _without_picture(request: Request) -> Request:
    return dataclasses.replace(request, picture=b"")


def _encoded(request: Request) -> Encoded:
    return Encoded(request.picture, request.options.get("size"))
