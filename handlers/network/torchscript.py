"""Runs a network in TorchScript: on GPUs, and on every CPU."""

from __future__ import annotations

import logging
import warnings

import torch

from handlers.network.artefact import Artefact
from handlers.network.cuda_graphs import CudaGraphs
from handlers.network.golden import check

logger = logging.getLogger(__name__)

# Layers inside modules of this class stay in float32 (``export.simplify``).
FLOAT32_CLASS = "InFloat32"


class TorchScript:
    """The network of ``artefact`` on ``device``, computing in ``precision``.

    Raises LoadError if the file or the device is faulty.
    """

    def __init__(self, artefact: Artefact, device: torch.device, precision: str) -> None:
        self._device, self._dtype = device, getattr(torch, precision)
        # TF32 is too inexact for the parity with eager PyTorch that this project promises.
        torch.backends.cudnn.allow_tf32 = False
        script = artefact.script().to(device).to(memory_format=torch.channels_last)
        # The tolerance for reduced precision would hide a damaged file, so check float32 first.
        check(lambda batch: script(batch.to(device)), artefact, device, "float32")
        reduce(script, self._dtype)
        self._network = _frozen(script)
        self._graphs: CudaGraphs | None = None
        check(self, artefact, device, precision)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """``(N, 3, H, W) float32`` -> ``(N, ...) float32`` on the CPU."""
        batch = batch.to(self._device, self._dtype, memory_format=torch.channels_last)
        if self._graphs is not None and len(batch) <= self._graphs.largest:
            return self._graphs(batch).float().cpu()
        output: torch.Tensor = self._network(batch)
        return output.float().cpu()

    def capture(self, example: torch.Tensor, largest: int) -> None:
        """On a GPU, capture CUDA graphs for batches of up to ``largest`` inputs like ``example``.

        Without graphs, if that fails, it runs as before.
        """
        if self._device.type != "cuda":
            return
        try:
            example = example.to(self._device, self._dtype, memory_format=torch.channels_last)
            self._graphs = CudaGraphs(self._network, example, largest)
        except RuntimeError:
            logger.warning("no CUDA graphs", exc_info=True)


def reduce(script: torch.jit.ScriptModule, dtype: torch.dtype) -> None:
    """Convert parameters and buffers to ``dtype`` in place, except those that stay in float32."""
    kept = tuple(
        f"{name}." for name, module in script.named_modules() if _class(module) == FLOAT32_CLASS
    )
    for name, tensor in (*script.named_parameters(), *script.named_buffers()):
        if tensor.is_floating_point() and not name.startswith(kept):
            tensor.data = tensor.data.to(dtype)


def _class(module: torch.jit.ScriptModule) -> str:
    """The name of the class that ``module`` was traced from."""
    name: str = module.original_name
    return name


def _frozen(script: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """``script`` with its weights as constants, for inference only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen: torch.jit.ScriptModule = torch.jit.freeze(script)
    return frozen
