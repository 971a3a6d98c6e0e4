"""CUDA graphs of a network with a fixed input size: one launch per batch instead of hundreds.

For small batches a GPU runs a classifier's kernels faster than Python and the driver launch them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# The documentation of torch.cuda.graph asks for a few runs on a side stream before the capture, in
# which cuDNN and TorchScript select and compile kernels.
_WARM_RUNS = 3
# Relative. Padding a batch may select other kernels, which differ by rounding only.
_TOLERANCE = 1e-2


class CudaGraphs:
    """Replays ``network`` for batches of up to ``largest`` inputs like ``example``.

    ``example`` is ``(1, C, H, W)`` on the GPU. A batch is padded to the next captured size, a power
    of two or ``largest``. Raises RuntimeError if the capture fails or if the output of a replay
    differs from the network's.
    """

    def __init__(
        self, network: Callable[[torch.Tensor], torch.Tensor], example: torch.Tensor, largest: int
    ) -> None:
        self.largest = largest
        powers = {2**n for n in range(largest.bit_length()) if 2**n < largest}
        self._sizes = sorted(powers | {largest})
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._inputs: dict[int, torch.Tensor] = {}
        self._outputs: dict[int, torch.Tensor] = {}
        pool = torch.cuda.graph_pool_handle()
        with torch.cuda.device(example.device), torch.inference_mode():
            # The largest first: the smaller ones reuse its memory.
            for size in reversed(self._sizes):
                batch = example.repeat(size, 1, 1, 1).contiguous(memory_format=torch.channels_last)
                self._capture(network, batch, pool)
            plain, replayed = network(example).float(), self(example).float()
        if not (plain - replayed).abs().max() <= _TOLERANCE * plain.abs().max():
            raise RuntimeError("the output of a CUDA graph differs from the network's")

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """``network(batch)`` on the GPU, for a batch of at most ``largest``."""
        count = len(batch)
        size = next(size for size in self._sizes if size >= count)
        self._inputs[size][:count].copy_(batch)
        self._graphs[size].replay()
        return self._outputs[size][:count].clone()

    def _capture(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        batch: torch.Tensor,
        pool: Any,
    ) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_RUNS):
                network(batch)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            output = network(batch)
        self._graphs[len(batch)], self._inputs[len(batch)] = graph, batch
        self._outputs[len(batch)] = output
