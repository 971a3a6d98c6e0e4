"""Pictures of any sizes -> outputs, in batches; a failure stays with the request that caused it."""

from __future__ import annotations

import logging
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

from handlers.errors import InternalError, Overloaded, RequestError
from handlers.network.engine import Engine
from handlers.pictures.pool import Pixels
from handlers.stages import Stages

logger = logging.getLogger(__name__)

T = TypeVar("T")


def infer(
    engine: Engine,
    pictures: Sequence[Pixels | RequestError],
    pixels_at_once: int,
    stages: Stages,
) -> list[torch.Tensor | RequestError]:
    """The network's output for each picture, float32 on the CPU without a batch axis, or its error.

    Errors in ``pictures`` are returned unchanged. Pictures of the same size are batched, up to
    ``pixels_at_once`` input pixels per batch but at least one picture.
    """
    outputs: list[torch.Tensor | RequestError] = [InternalError()] * len(pictures)
    groups: dict[tuple[int, int], list[tuple[int, Pixels]]] = defaultdict(list)
    for i, picture in enumerate(pictures):
        if isinstance(picture, RequestError):
            outputs[i] = picture
        else:
            groups[picture.size].append((i, picture))
    for (width, height), members in groups.items():
        for batch in _slices(members, max(pixels_at_once // (width * height), 1)):
            positions, batched = zip(*batch, strict=True)
            for i, output in zip(positions, _infer(engine, batched, stages), strict=True):
                outputs[i] = output
    return outputs


def _infer(
    engine: Engine, pictures: Sequence[Pixels], stages: Stages
) -> list[torch.Tensor | RequestError]:
    """``pictures`` of one size -> one output or error each.

    If a batch fails, its pictures are retried one by one. If the GPU is lost, this process exits
    and TorchServe starts another worker.
    """
    try:
        with torch.inference_mode():
            with stages("preprocess"):
                batch = engine.preprocess(pictures)
            with stages("network"):
                outputs = engine(batch)
        # Neither JSON nor a picture can represent NaN or infinity; the network is at fault: 500.
        return [output if output.isfinite().all() else InternalError() for output in outputs]
    except Exception as error:
        exit_if_lost(engine.device)
        if len(pictures) > 1:
            logger.warning("a batch of %d failed; trying one by one", len(pictures), exc_info=True)
            return [output for one in pictures for output in _infer(engine, [one], stages)]
        picture = pictures[0]
        logger.exception("the network failed on %dx%d pixels", *picture.size)
        return [
            Overloaded("no memory left for this picture") if _is_oom(error) else InternalError()
        ]


def exit_if_lost(device: torch.device) -> None:
    """Exit if a CUDA error has corrupted the context of this process.

    After an illegal memory access or a device-side assert, every later CUDA call fails too; after
    an out-of-memory error they still work. os._exit, because destroying a corrupted context can
    hang.
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        logger.critical("%s is lost: ending the worker", device, exc_info=True)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(1)


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items`` in order, in slices of at most ``size``."""
    return (items[i : i + size] for i in range(0, len(items), size))


def _is_oom(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)  # TorchScript's interpreter and the CPU allocator raise RuntimeError
    return "out of memory" in text or "can't allocate memory" in text
