"""A network with one input size as CUDA graphs: one launch a batch instead of hundreds.

At small batches a GPU finishes ResNet's kernels sooner than Python and the driver can launch them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# torch.cuda.graph's documentation asks for a few runs on a side stream first: cuDNN and TorchScript
# choose and compile in them.
_WARM_RUNS = 3
# Padding changes nothing but kernels; a replay that is off by more is broken.
_TOLERANCE = 1e-2


class CudaGraphs:
    """Replays ``network`` for batches of up to ``largest`` inputs like ``example``.

    ``example`` is ``(1, C, H, W)`` on its device. A batch is padded to the next captured size, a
    power of two or ``largest``. Raises RuntimeError where capturing fails, or a replay does not
    give what the network gives.
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
            # The largest first: the smaller ones fit into its memory.
            for size in reversed(self._sizes):
                batch = example.repeat(size, 1, 1, 1).contiguous(memory_format=torch.channels_last)
                self._capture(network, batch, pool)
            plain, replayed = network(example).float(), self(example).float()
        if not (plain - replayed).abs().max() <= _TOLERANCE * plain.abs().max():
            raise RuntimeError("a CUDA graph does not give what the network gives")

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """``network(batch)``, on the device, for a batch of at most ``largest``."""
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
