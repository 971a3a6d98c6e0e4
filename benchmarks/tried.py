"""What was tried to make it fast, each way beside the others: ``python -m benchmarks.tried``.

Untrained networks; the ways of one table take turns, so that a noisy machine is noisy for all.
``docs/performance.md`` says what was made of it.
"""

from __future__ import annotations

import copy
import io
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.pictures import SIZES, photograph
from export.checkpoints import untrained
from export.networks import registered
from export.simplify import simplified
from handlers.pictures.resample import resample
from tests.specs import RESNET101

ROUNDS = 7
PNG_LEVELS = (0, 1, 3, 6, 9)
# The least that a JPEG's decoded shorter side may be, in what the network needs; none: all of it.
MARGINS = (None, 1.0, 2.0, 3.0)
BATCHES = {"resnet101": (1, 2, 4, 8), "cyclegan": (1, 2, 4)}

Way = Callable[[], object]


def median_ms(ways: Mapping[str, Way]) -> dict[str, float]:
    """Median ms of each way over ROUNDS turns, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - begun))
    return {name: statistics.median(found) for name, found in times.items()}


def networks(model: str, batch: int) -> None:
    """A plain trace against each thing that may be done to it."""
    module = untrained(registered()[model])
    side = 224 if model == "resnet101" else 256
    x = torch.rand(batch, 3, side, side)
    last = x.contiguous(memory_format=torch.channels_last)
    simple = simplified(module)
    laid = copy.deepcopy(simple).to(memory_format=torch.channels_last)

    def frozen(network: nn.Module, example: torch.Tensor) -> torch.jit.ScriptModule:
        found: torch.jit.ScriptModule = torch.jit.freeze(traced(network, example))
        return found

    def traced(network: nn.Module, example: torch.Tensor) -> torch.jit.ScriptModule:
        found: torch.jit.ScriptModule = torch.jit.trace(network, example, check_trace=False).eval()
        return found

    ways = {
        "traced": (traced(module, x), x),
        "frozen": (frozen(module, x), x),
        "simplified, frozen": (frozen(simple, x), x),
        "simplified, optimize_for_inference": (
            torch.jit.optimize_for_inference(frozen(simple, x)),
            x,
        ),
        "simplified, channels-last, optimize_for_inference": (
            torch.jit.optimize_for_inference(frozen(laid, last)),
            last,
        ),
        "simplified, channels-last, frozen (served)": (frozen(laid, last), last),
    }
    with torch.inference_mode():
        for network, example in ways.values():
            network(example)  # TorchScript optimises in the first two runs
        found = median_ms({name: partial(n, e) for name, (n, e) in ways.items()})
    print(f"\n{model}, batch {batch}, ms a picture")
    for name, ms in found.items():
        print(f"  {name:<50} {ms / batch:>8.1f}")


def batches(model: str) -> None:
    """What a batch gains or costs on this CPU."""
    laid = simplified(untrained(registered()[model])).to(memory_format=torch.channels_last)
    side = 224 if model == "resnet101" else 256
    inputs = {
        n: torch.rand(n, 3, side, side).contiguous(memory_format=torch.channels_last)
        for n in BATCHES[model]
    }
    network = torch.jit.freeze(torch.jit.trace(laid, inputs[1], check_trace=False).eval())
    with torch.inference_mode():
        found = median_ms({str(n): partial(network, x) for n, x in inputs.items()})
    print(f"\n{model} by batch size, ms a picture")
    for size, ms in found.items():
        print(f"  {size:<50} {ms / int(size):>8.1f}")


def jpegs() -> None:
    """Decoding at a fraction: ms, and 8-bit steps off in the network's input."""
    for name in ("1280x720", "12 MP"):
        data = photograph(SIZES[name])
        ways = {_margin(margin): partial(shrunk, data, margin) for margin in MARGINS}
        exact = np.asarray(shrunk(data, None), np.int16)
        found = median_ms(ways)
        print(f"\nJPEG of {name}, decoded and resized, one core: ms, steps off on average, at most")
        for way, ms in found.items():
            off = np.abs(np.asarray(ways[way](), np.int16) - exact)
            print(f"  {way:<50} {ms:>8.1f} {off.mean():>8.2f} {off.max():>4}")


def _margin(margin: float | None) -> str:
    return "in full" if margin is None else f"at least {margin:g} times what is needed"


def shrunk(data: bytes, margin: float | None) -> Image.Image:
    """ResNet-101's input, from a JPEG decoded no larger than ``margin`` asks for."""
    with Image.open(io.BytesIO(data)) as image:
        if margin is not None:
            least = int(margin * RESNET101.resize)
            image.draft(None, (least, least))
        return resample(RESNET101, image.convert("RGB"))


def pngs() -> None:
    """Compressing an answer of 256x256."""
    with Image.open(io.BytesIO(photograph((256, 256)))) as opened:
        image = opened.convert("RGB")

    def encoded(level: int) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=level)
        return buffer.getvalue()

    found = median_ms({str(n): partial(encoded, n) for n in PNG_LEVELS})
    print("\nPNG of 256x256 by zlib's level: ms, kB")
    for level, ms in found.items():
        print(f"  {level:<50} {ms:>8.1f} {len(encoded(int(level))) / 1e3:>8.0f}")


def main() -> None:
    warnings.simplefilter("ignore")  # TorchScript is deprecated
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    for model, batch in (("resnet101", 1), ("resnet101", 8), ("cyclegan", 1)):
        networks(model, batch)
    for model in BATCHES:
        batches(model)
    jpegs()
    pngs()


if __name__ == "__main__":
    main()
