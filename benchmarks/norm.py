"""Instance norm by every way PyTorch has, its ms and error: ``python -m benchmarks.norm``.

The shapes are those of the CycleGAN generator at 256x256. Channels have means of several times
their deviation, as trained ones may.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from export.simplify import CentredGroupNorm

SHAPES = ((1, 64, 256, 256), (1, 128, 128, 128), (1, 256, 64, 64))
ROUNDS = 15
MEANS = 5.0
EPS = 1e-5


def milliseconds(norm: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        norm(x)
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def main() -> None:
    print(f"{'shape':<20} {'norm':<20} {'layout':<14} {'ms':>8} {'largest error':>14}")
    seed = torch.Generator().manual_seed(0)
    for shape in SHAPES:
        channels = shape[1]
        means = MEANS * torch.randn(1, channels, 1, 1, generator=seed)
        x = torch.randn(shape, generator=seed) + means
        exact = nn.InstanceNorm2d(channels)(x.double())
        norms = {
            "instance norm": nn.InstanceNorm2d(channels),
            "group norm": nn.GroupNorm(channels, channels, affine=False),
            "centred group norm": CentredGroupNorm(channels, EPS),
        }
        for layout in (torch.contiguous_format, torch.channels_last):
            laid = x.contiguous(memory_format=layout)
            name = "channels-last" if layout is torch.channels_last else "contiguous"
            with torch.inference_mode():
                for text, norm in norms.items():
                    error = (norm(laid) - exact).abs().max().item()
                    row = f"{milliseconds(norm, laid):>8.2f} {error:>14.1e}"
                    print(f"{'x'.join(map(str, shape)):<20} {text:<20} {name:<14} {row}")


if __name__ == "__main__":
    main()
