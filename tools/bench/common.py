"""What all measurements share. Every process of the benchmark imports it, so it imports little."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

RUN = Path(__file__).parents[2] / "run"
FOLDER = RUN / "bench"
STORE = FOLDER / "model_store"


@dataclass(frozen=True)
class Task:
    """``clients`` of a closed loop, its ``seconds``, and the ``batches`` of the bare network.

    ``curve`` has the clients of further closed loops, at most as many as the gateway lets in.
    ``handler`` is stock TorchServe's own, or the file of a plain one.
    """

    name: str
    clients: int
    seconds: float
    batches: tuple[int, ...]
    curve: tuple[int, ...]
    handler: str


TASKS = {
    "classify": Task("classify", 16, 10, (1, 2, 4, 8), (1, 4, 16, 32), "image_classifier"),
    # Slower, so it takes longer for as many batches, which soon outgrow a CPU's caches.
    "translate": Task(
        "translate", 4, 14, (1, 2), (1, 2, 4, 8), str(Path(__file__).parent / "plain_translate.py")
    ),
}


# Engine and precision.
Variant = tuple[str, str]
# Seconds a picture of the bare network, by engine and precision, and by batch.
Speeds = dict[Variant, dict[int, float]]


@dataclass(frozen=True)
class Result:
    """One measurement: pictures/s, and either ms a picture or the p50, p95 and p99 of latency.

    ``memory`` is in resident bytes, of the bare network's process or of a worker.
    """

    label: str
    rate: float
    ms: tuple[float, ...]
    memory: float = 0.0


def process() -> ProcessPoolExecutor:
    """One fresh Python process, which ends with this one even if it is killed."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the benchmark, which ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # As in the server's workers, and before torch is imported: OpenMP threads that spin take cores.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
