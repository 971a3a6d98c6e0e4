"""A TorchScript artefact -> the network as its device runs it fastest, checked before use."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from handlers.metadata import Spec
from handlers.network.cuda_graphs import CudaGraphs
from handlers.network.precision import choose
from handlers.preprocess import to_input

logger = logging.getLogger(__name__)

# How far the golden example may be from the answer at export, relative to its largest value.
# float32: room for another device's kernels, none for a damaged file. A reduced precision is
# checked after that, for faults of its kernels; the gate at export judges its accuracy.
GOLDEN_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}

# Layers below modules of this class stay in float32 (``export.simplify``).
FLOAT32_CLASS = "InFloat32"


class LoadError(Exception):
    """The model cannot be served here; the message says what to do."""


class Network:
    """The network of an artefact, on a device, in a precision.

    ``metadata`` is the artefact's ``model.json``, ``spec`` its specification; ``precision`` is
    what it runs in, ``precision_reason`` why. Raises LoadError where the artefact cannot be used.
    """

    def __init__(self, path: Path, device: torch.device, precision: str = "auto") -> None:
        script, extra = _read(path)
        self.device = device
        self.metadata: dict[str, Any] = json.loads(extra["model.json"])
        self.spec = Spec.from_map(self.metadata["spec"])
        gate = self.metadata.get("precisions", {})
        self.precision, self.precision_reason = choose(precision, device, gate)
        self._dtype: torch.dtype = getattr(torch, self.precision)
        # float32 means float32: TF32 would miss the parity this project promises.
        torch.backends.cudnn.allow_tf32 = False
        script = script.to(device).to(memory_format=torch.channels_last)
        golden = self.metadata["golden"]
        example = _tensor(extra["golden_input.f32"], golden["input_shape"])
        expected = _tensor(extra["golden_output.f32"], golden["output_shape"])
        # Reduced precision needs a tolerance that hides damage, so float32 is checked first.
        self._check_golden(script, example, expected, "float32")
        reduce(script, self._dtype)
        self._network = _frozen(script)
        self._check_golden(self._network, example, expected, self.precision)
        self._graphs: CudaGraphs | None = None

    def preprocess(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        """``N`` pictures ``(H, W, 3) uint8`` of one size -> the network's input on its device."""
        batch = torch.stack(list(pixels)).to(self.device)
        return to_input(self.spec, batch).to(self._dtype)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """What ``preprocess`` gave -> ``(N, ...) float32`` on the CPU."""
        if self._graphs is not None and len(batch) <= self._graphs.largest:
            return self._graphs(batch).float().cpu()
        output: torch.Tensor = self._network(batch)
        return output.float().cpu()

    def warm_up(self, largest: int) -> None:
        """Do all first-time work for batches of up to ``largest``, so that no client pays for it
        or meets an out-of-memory that was there from the start.

        Sizes between two powers of two behave as the larger one. On a GPU a network of one input
        size is captured in CUDA graphs; where that fails it goes on without them.
        """
        side = self.spec.crop or self.spec.resize
        black = torch.zeros(side, side, 3, dtype=torch.uint8)
        with torch.inference_mode():
            for size in sorted({min(2**n, largest) for n in range(largest.bit_length() + 1)}):
                self(self.preprocess([black] * size))
            if self.device.type != "cuda" or self.spec.crop is None:
                return
            try:
                self._graphs = CudaGraphs(self._network, self.preprocess([black]), largest)
            except RuntimeError:
                logger.warning("%s runs without CUDA graphs", self.spec.name, exc_info=True)

    def _check_golden(
        self,
        script: torch.jit.ScriptModule,
        example: torch.Tensor,
        expected: torch.Tensor,
        precision: str,
    ) -> None:
        """Raise LoadError unless ``script``, in ``precision``, gives what eager PyTorch gave."""
        layout = torch.channels_last
        batch = example.to(self.device, getattr(torch, precision), memory_format=layout)
        with torch.inference_mode():
            output = script(batch).float().cpu()
        error = ((output - expected).abs().max() / expected.abs().max()).item()
        allowed = GOLDEN_TOLERANCE[precision]
        if not error <= allowed:  # NaN too
            raise LoadError(
                f"{self.spec.name} on {self.device} misses its golden example in {precision}: "
                f"relative error {error:.2g}, allowed {allowed:g}; the file or the device is faulty"
            )


def _read(path: Path) -> tuple[torch.jit.ScriptModule, dict[str, bytes]]:
    extra = {"model.json": b"", "golden_input.f32": b"", "golden_output.f32": b""}
    try:
        with warnings.catch_warnings():
            # Each load warns that TorchScript is deprecated: noise in every worker's log.
            warnings.simplefilter("ignore")
            script = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise LoadError(f"{path.name} is no TorchScript file, or is damaged") from error
    if not all(extra.values()):
        raise LoadError(f"{path.name} carries no specification: export it with `make export`")
    return script.eval(), extra


def reduce(script: torch.jit.ScriptModule, dtype: torch.dtype) -> None:
    """Convert the parameters to ``dtype`` in place, but for layers that stay in float32."""
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
    """``script`` for inference alone: its weights are constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen: torch.jit.ScriptModule = torch.jit.freeze(script)
    return frozen


def _tensor(data: bytes, shape: Sequence[int]) -> torch.Tensor:
    """Little-endian float32 bytes -> tensor."""
    return torch.frombuffer(bytearray(data), dtype=torch.float32).view(*shape)
