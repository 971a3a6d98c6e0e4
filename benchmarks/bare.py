"""The floor: what the network and the pipeline take in one process, without any server.

``python -m benchmarks.bare MODEL.pt`` loads the network and answers lines of JSON. Its memory is
that of "the bare network's process".
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import psutil
import torch

from benchmarks.processes import python, receive_line, send_line
from handlers.network.engine import Engine
from handlers.pictures.decode import decode
from handlers.pictures.pool import Pixels
from handlers.pictures.resample import resample
from handlers.tasks.translate import encode, to_image

Work = Literal["decode", "network", "pipeline"]
WORKS: tuple[Work, ...] = get_args(Work)

# Among these the best batch is looked for, by the network's output. Generated pictures outgrow the
# caches soon: ``python -m benchmarks.tried``.
BATCHES = {"classes": (1, 2, 4, 8), "picture": (1, 2)}
SEARCH_ROUNDS = 3
# The largest batch that first-time work is done for, CUDA graphs included.
LARGEST = {"cpu": 8, "cuda": 32}
TOP_K = 5


@dataclass(frozen=True)
class Loaded:
    """How a network runs there."""

    precision: str
    precision_reason: str
    threads: int


@dataclass(frozen=True)
class Time:
    """Median ms a picture in batches of ``batch``, and the process's resident bytes after it."""

    ms: float
    batch: int
    rss: int

    @property
    def rate(self) -> float:
        """Pictures per second."""
        return 1e3 / self.ms


class Bare:
    """The process, to its caller. Use ``bare``, which ends it."""

    def __init__(self, pt: Path, device: str, stack: contextlib.ExitStack) -> None:
        self._child = stack.enter_context(python("benchmarks.bare", str(pt), "--device", device))
        self.loaded = Loaded(**receive_line(self._child))

    def measure(self, work: Work, picture: Path, seconds: float, batch: int | None = None) -> Time:
        """``work`` on ``picture``, repeated for ``seconds``, in the best batch or in ``batch``.

        ``decode``: one thread, to the network's pixels. ``network``: from pixels to its output.
        ``pipeline``: from the file's bytes to the answer's, over all cores.
        """
        request = {"work": work, "picture": str(picture), "seconds": seconds, "batch": batch}
        send_line(self._child, request)
        return Time(**receive_line(self._child))


@contextlib.contextmanager
def bare(pt: Path, device: str) -> Iterator[Bare]:
    """``device`` is PyTorch's word: cpu or cuda."""
    with contextlib.ExitStack() as stack:
        yield Bare(pt, device, stack)


class Pipeline:
    """One network, and each kind of work on a picture with it."""

    def __init__(self, network: Engine) -> None:
        self._network = network
        self._threads = ThreadPoolExecutor(os.cpu_count())
        self._best: dict[Work, int] = {}

    def measure(self, work: Work, data: bytes, seconds: float, batch: int | None) -> Time:
        """See ``Bare.measure``. The best batch is looked for once for each kind of work."""
        if batch is None and work not in self._best:
            sizes = BATCHES[self._network.metadata.spec.output]
            self._best[work] = best_batch({n: self._prepare(work, data, n) for n in sizes})
        size = batch or self._best[work]
        once = self._prepare(work, data, size)
        once()
        times = [_seconds(once)]
        ends = time.perf_counter() + seconds - times[0]
        while time.perf_counter() < ends:
            times.append(_seconds(once))
        ms = 1e3 * statistics.median(times) / size
        return Time(ms, size, psutil.Process().memory_info().rss)

    def decode(self, data: bytes) -> Pixels:
        """An encoded picture -> the network's pixels ``(H, W, 3) uint8``."""
        spec = self._network.metadata.spec
        image = resample(spec, decode(data, resize=spec.resize))
        return Pixels(image.size, bytearray(image.tobytes()))

    def answer(self, output: torch.Tensor) -> bytes:
        """One row of the network's output -> the body of an answer."""
        if self._network.metadata.spec.output == "picture":
            return encode(to_image(output), "png", quality=0)
        probabilities, classes = output.softmax(dim=0).topk(TOP_K)
        labels = [self._network.metadata.spec.labels[i] for i in classes.tolist()]
        return json.dumps(list(zip(labels, probabilities.tolist(), strict=True))).encode()

    def _prepare(self, work: Work, data: bytes, size: int) -> Callable[[], object]:
        """What does ``work`` on ``size`` pictures."""
        match work:
            case "decode":
                return lambda: [self.decode(data) for _ in range(size)]
            case "network":
                pixels = [self.decode(data)] * size
                return lambda: self._infer(pixels)
            case "pipeline":
                return lambda: self._whole([data] * size)

    def _whole(self, batch: list[bytes]) -> list[bytes]:
        outputs = self._infer(list(self._threads.map(self.decode, batch)))
        # Not in the threads, as in the handler: each that runs PyTorch gets OpenMP threads of its
        # own, which compete with the network's.
        return [self.answer(output) for output in outputs]

    def _infer(self, pixels: list[Pixels]) -> torch.Tensor:
        with torch.inference_mode():
            return self._network(self._network.preprocess(pixels))


def best_batch(ways: Mapping[int, Callable[[], object]]) -> int:
    """The batch whose work takes the least median time a picture; ``ways`` is the work by batch.

    Rounds over all batches follow each other, so that a slow moment does not decide on one of them.
    """
    for once in ways.values():
        once()
    times: dict[int, list[float]] = {size: [] for size in ways}
    for _ in range(SEARCH_ROUNDS):
        for size, once in ways.items():
            times[size].append(_seconds(once) / size)
    return min(ways, key=lambda size: statistics.median(times[size]))


def _seconds(once: Callable[[], object]) -> float:
    begun = time.perf_counter()
    once()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare", description=__doc__)
    parser.add_argument("pt", type=Path)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    network = Engine(arguments.pt, torch.device(arguments.device))
    network.warm_up(LARGEST[arguments.device])
    pipeline = Pipeline(network)
    loaded = Loaded(network.precision, network.precision_reason, torch.get_num_threads())
    print(json.dumps(dataclasses.asdict(loaded)), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        data = Path(request.pop("picture")).read_bytes()
        print(json.dumps(dataclasses.asdict(pipeline.measure(data=data, **request))), flush=True)


if __name__ == "__main__":
    main()
