"""Runs a TorchScript artefact as fast as its device allows; checks it first."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from handlers.errors import LoadError
from handlers.metadata import Spec
from handlers.network.artefact import Artefact, read
from handlers.network.cuda_graphs import CudaGraphs
from handlers.network.precision import choose
from handlers.pictures.pool import Pixels

logger = logging.getLogger(__name__)

# The allowed error on the golden example, relative to the largest output of eager PyTorch. The
# value for float32 allows for another device's kernels and detects a damaged file. The check in
# reduced precision only detects faulty kernels; the gate at export judges its accuracy.
GOLDEN_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}

# Layers inside modules of this class stay in float32 (``export.simplify``).
FLOAT32_CLASS = "InFloat32"


class Engine:
    """The network of an artefact on a device.

    ``precision`` is the type that it computes in, ``precision_reason`` says why. Raises LoadError
    if the artefact cannot be used.
    """

    def __init__(self, path: Path, device: torch.device, precision: str = "auto") -> None:
        artefact = read(path)
        self.device = device
        self.metadata = artefact.metadata
        self.precision, self.precision_reason = choose(precision, device, self.metadata.precisions)
        self._dtype: torch.dtype = getattr(torch, self.precision)
        # TF32 is too inexact for the parity with eager PyTorch that this project promises.
        torch.backends.cudnn.allow_tf32 = False
        script = artefact.script.to(device).to(memory_format=torch.channels_last)
        # The tolerance for reduced precision would hide a damaged file, so check float32 first.
        self._check_golden(script, artefact, "float32")
        reduce(script, self._dtype)
        self._network = _frozen(script)
        self._check_golden(self._network, artefact, self.precision)
        self._graphs: CudaGraphs | None = None

    def preprocess(self, pictures: Sequence[Pixels]) -> torch.Tensor:
        """``N`` pictures of one size -> ``(N, 3, H, W)`` on the device, in ``precision``."""
        batch = torch.stack([to_tensor(picture) for picture in pictures]).to(self.device)
        return to_input(self.metadata.spec, batch).to(self._dtype)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """A batch from ``preprocess`` -> the network's output, ``(N, ...) float32`` on the CPU."""
        if self._graphs is not None and len(batch) <= self._graphs.largest:
            return self._graphs(batch).float().cpu()
        output: torch.Tensor = self._network(batch)
        return output.float().cpu()

    def warm_up(self, largest: int) -> None:
        """Run batches of up to ``largest``, so that no client waits for one-time initialisation.

        A lack of memory also shows at the start then. Powers of two suffice: other batch sizes
        behave like the next larger one. On a GPU, a network with a fixed input size is captured in
        CUDA graphs; if the capture fails, it runs without them.
        """
        spec = self.metadata.spec
        side = spec.crop or spec.resize
        black = Pixels((side, side), bytearray(side * side * 3))
        with torch.inference_mode():
            for size in sorted({min(2**n, largest) for n in range(largest.bit_length() + 1)}):
                self(self.preprocess([black] * size))
            if self.device.type != "cuda" or spec.crop is None:
                return
            try:
                self._graphs = CudaGraphs(self._network, self.preprocess([black]), largest)
            except RuntimeError:
                logger.warning("%s runs without CUDA graphs", spec.name, exc_info=True)

    def _check_golden(
        self, script: torch.jit.ScriptModule, artefact: Artefact, precision: str
    ) -> None:
        """Raise LoadError unless ``script``, in ``precision``, returns eager PyTorch's output."""
        dtype, layout = getattr(torch, precision), torch.channels_last
        batch = artefact.golden_input.to(self.device, dtype, memory_format=layout)
        with torch.inference_mode():
            output = script(batch).float().cpu()
        expected = artefact.golden_output
        error = ((output - expected).abs().max() / expected.abs().max()).item()
        allowed = GOLDEN_TOLERANCE[precision]
        if not error <= allowed:  # NaN too
            raise LoadError(
                f"{self.metadata.name} on {self.device} misses its golden example in {precision}: "
                f"relative error {error:.2g}, allowed {allowed:g}; the file or the device is faulty"
            )


def to_tensor(picture: Pixels) -> torch.Tensor:
    """``(H, W, 3) uint8``, a view of the picture's memory."""
    width, height = picture.size
    return torch.frombuffer(picture.data, dtype=torch.uint8).view(height, width, 3)


def to_input(spec: Spec, pixels: torch.Tensor) -> torch.Tensor:
    """``(N, H, W, 3) uint8`` -> ``(N, 3, H, W) float32`` on the same device, as ``spec`` says.

    Copying uint8 to a GPU takes a quarter of the bytes of float32, and the result is channels-last
    without another copy.
    """
    mean, std = (torch.tensor(values, device=pixels.device) for values in (spec.mean, spec.std))
    # (p / 255 - mean) / std in two passes over the data instead of three.
    return pixels.float().mul_(1 / (255 * std)).sub_(mean / std).permute(0, 3, 1, 2)


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
