"""The baseline: a network in a process of its own, without a server."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import statistics
import time
import timeit
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import psutil
import torch

from handlers.network import openvino
from handlers.network.artefact import read
from handlers.network.engine import Engine
from handlers.pictures.decode import decode
from handlers.pictures.pool import Pixels
from handlers.pictures.resample import resample
from handlers.tasks.translate import encode, to_image
from tools.bench.common import Result, Speeds, Variant, process
from tools.bench.peak import native

# decode: file -> the network's input, in threads; network: input -> output; pipeline: file -> body.
Work = Literal["decode", "network", "pipeline"]
# Arguments: the work, seconds, batch sizes. Measures all batch sizes, returns the fastest.
Measure = Callable[[Work, float, tuple[int, ...]], Result]

Key = TypeVar("Key", bound=Hashable)


@contextlib.contextmanager
def bare(pt: Path, device: str, picture: Path, largest: int) -> Iterator[Measure]:
    """The process of the network of ``pt`` on ``device``, cpu or gpu, in batches up to ``largest``.

    As in a worker, all of these are warmed up, and captured in CUDA graphs.
    """
    with process() as pool:
        yield lambda *job: pool.submit(_measure, pt, device, picture, largest, *job).result()


def _measure(
    pt: Path,
    device: str,
    picture: Path,
    largest: int,
    work: Work,
    seconds: float,
    batches: tuple[int, ...],
) -> Result:
    network, data = _Bare(pt, device, largest), picture.read_bytes()
    each, batch = fastest({n: network.job(work, data, n) for n in batches}, seconds)
    label = f"bare {work}{', one core' if work == 'decode' and batch == 1 else ''}, batch {batch}"
    return Result(label, 1 / each, (1e3 * each,), psutil.Process().memory_info().rss)


def fastest(jobs: Mapping[int, Callable[[], object]], seconds: float) -> tuple[float, int]:
    """The lowest median of seconds a picture, and its batch; ``jobs`` are by batch."""
    times = medians(jobs, seconds)
    return min((each / batch, batch) for batch, each in times.items())


def medians(jobs: Mapping[Key, Callable[[], object]], seconds: float) -> dict[Key, float]:
    """The median of the seconds that each of ``jobs`` takes.

    They take turns, so that a slow moment of the machine does not decide against one of them.
    """
    times: dict[Key, list[float]] = {key: [] for key in jobs}
    for job in jobs.values():
        job()
    end = time.perf_counter() + seconds
    while not all(times.values()) or time.perf_counter() < end:
        for key, job in jobs.items():
            times[key].append(timeit.timeit(job, number=1))
    return {key: statistics.median(each) for key, each in times.items()}


def engines(
    pt: Path, device: str, picture: Path, seconds: float, batches: tuple[int, ...]
) -> tuple[tuple[int, int], Speeds]:
    """The network's input size, and its speed by every engine; all take turns in one process."""
    with process() as pool:
        return pool.submit(_engines, pt, device, picture, seconds, batches).result()


def _engines(
    pt: Path, device: str, picture: Path, seconds: float, batches: tuple[int, ...]
) -> tuple[tuple[int, int], Speeds]:
    data = picture.read_bytes()
    networks = {
        variant: _Bare(pt, device, max(batches), *variant) for variant in variants(pt, device)
    }
    jobs = {
        (variant, batch): network.job("network", data, batch)
        for variant, network in networks.items()
        for batch in batches
    }
    speeds: Speeds = {variant: {} for variant in networks}
    for (variant, batch), each in medians(jobs, seconds).items():
        speeds[variant][batch] = each / batch
    size = next(iter(networks.values())).size(data)
    return size, speeds


def variants(pt: Path, device: str) -> list[Variant]:
    """Every engine and precision that the artefact can be served with on ``device``."""
    metadata, reduced = read(pt).metadata, native(device)
    wanted = {name for name, gate in metadata.precisions.items() if gate["passed"]}
    precisions = ["float32", *sorted(wanted & {reduced})]
    found = [("torchscript", precision) for precision in precisions]
    converted = metadata.engines.get("openvino")
    if device == "cpu" and converted and converted["passed"]:
        precisions += sorted(wanted & {"int8"})
        found += [("openvino", each) for each in precisions if openvino.missing(each) is None]
    return found


@functools.cache
class _Bare:
    def __init__(
        self,
        pt: Path,
        device: str,
        largest: int,
        engine: str = "auto",
        precision: str = "auto",
    ) -> None:
        place = torch.device("cuda" if device == "gpu" else "cpu")
        self._engine = Engine(pt, place, precision, engine)
        self._spec = self._engine.metadata.spec
        self._engine.warm_up(largest)
        self._threads = ThreadPoolExecutor(os.cpu_count())

    def job(self, work: Work, data: bytes, batch: int) -> Callable[[], object]:
        """A function that does ``work`` on a whole batch."""
        if work == "decode":
            return lambda: self._decode([data] * batch)
        if work == "network":
            pixels = self._decode([data]) * batch
            return lambda: self._infer(pixels)
        # The body is not made in threads: OpenMP would give each of them threads that compete with
        # the network's.
        return lambda: [self._body(row) for row in self._infer(self._decode([data] * batch))]

    def size(self, data: bytes) -> tuple[int, int]:
        """The width and height of the network's input for the picture ``data``."""
        return self._decode_one(data).size

    def _decode_one(self, data: bytes) -> Pixels:
        image = resample(self._spec, decode(data, resize=self._spec.resize))
        return Pixels(image.size, bytearray(image.tobytes()))

    def _decode(self, batch: list[bytes]) -> list[Pixels]:
        return list(self._threads.map(self._decode_one, batch))

    def _infer(self, pixels: list[Pixels]) -> torch.Tensor:
        with torch.inference_mode():
            return self._engine(self._engine.preprocess(pixels))

    def _body(self, row: torch.Tensor) -> bytes:
        if self._spec.output == "picture":
            return encode(to_image(row, self._spec.output_range), "png", quality=0)
        return json.dumps([part.tolist() for part in row.softmax(dim=0).topk(5)]).encode()
