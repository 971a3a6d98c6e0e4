"""What the machine can do at most, and the work of a network: its floating-point operations."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from export.networks import Network
from handlers.metadata import Spec
from handlers.network import precision
from tools.bench.common import process

# Both multiply n x n matrices: BLAS, and oneDNN (or cuDNN) as a convolution of 1x1.
Multiply = Callable[[], torch.Tensor]
SIDES = {"cpu": (256, 512, 1024, 2048), "gpu": (1024, 4096)}


def native(device: str) -> str:
    """The reduced precision that ``device`` (cpu or gpu) computes natively, else float32."""
    return precision.native(torch.device("cuda" if device == "gpu" else "cpu")) or "float32"


def peaks(device: str, seconds: float) -> dict[str, float]:
    """GFLOPS of the fastest matrix multiplication, by precision, in a process of its own."""
    with process() as pool:
        return pool.submit(_peaks, device, seconds).result()


def _peaks(device: str, seconds: float) -> dict[str, float]:
    types = {"float32": torch.float32, native(device): getattr(torch, native(device))}
    if device == "cpu" and torch.cpu._is_vnni_supported():
        types["int8"] = torch.int8
    return {
        name: max(_peak(make, dtype, device, seconds) for make in multiplications(dtype))
        for name, dtype in types.items()
    }


def _peak(
    make: Callable[[torch.Tensor], Multiply], dtype: torch.dtype, device: str, seconds: float
) -> float:
    """GFLOPS of the fastest call of any side. Larger sides are left out if one call takes long."""
    best, wait = 0.0, torch.cuda.synchronize if device == "gpu" else _nothing
    for side in SIDES[device]:
        matrix = torch.randint(-8, 8, (side, side)).to("cuda" if device == "gpu" else "cpu", dtype)
        multiply, fastest = make(matrix), float("inf")
        multiply()
        end = time.perf_counter() + seconds / len(SIDES[device])
        while (begun := time.perf_counter()) < end or fastest == float("inf"):
            multiply()
            wait()
            fastest = min(fastest, time.perf_counter() - begun)
        best = max(best, 2e-9 * side**3 / fastest)
        if fastest > seconds:
            break
    return best


def _nothing() -> None:
    """The CPU has finished when a call returns."""


def multiplications(dtype: torch.dtype) -> list[Callable[[torch.Tensor], Multiply]]:
    """Functions that prepare the multiplication of a square matrix of ``dtype`` with itself."""
    if dtype == torch.int8:
        return [lambda matrix: lambda: torch._int_mm(matrix, matrix)]
    return [lambda matrix: lambda: matrix @ matrix, _convolution]


def _convolution(matrix: torch.Tensor) -> Multiply:
    pixels, weights = matrix[None, :, :, None], matrix[:, :, None, None]
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    return lambda: conv2d(pixels, weights)


def gflop(network: Network, spec: Spec, size: tuple[int, int]) -> float:
    """Operations (1e9) for a picture of ``size`` (width, height) at the input of ``network``.

    A multiplication and an addition are two. Only matrix products and convolutions count; they are
    nearly all the work.
    """
    width, height = size
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.build(spec).eval()(torch.empty(1, 3, height, width))
    return float(counter.get_total_flops()) / 1e9
