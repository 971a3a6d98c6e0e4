"""The golden example: what eager PyTorch gave at export, checked when a network is loaded."""

from __future__ import annotations

from collections.abc import Callable

import torch

from handlers.errors import LoadError
from handlers.network.artefact import Artefact

# The allowed error, relative to the largest output of eager PyTorch. The value for float32 allows
# for another device's kernels and detects a damaged file. The check in reduced precision only
# detects faulty kernels; the gate at export judges its accuracy.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}


def check(
    network: Callable[[torch.Tensor], torch.Tensor],
    artefact: Artefact,
    device: torch.device,
    precision: str,
) -> None:
    """Raise LoadError unless ``network``, computing in ``precision``, gives the golden output."""
    with torch.inference_mode():
        output = network(artefact.golden_input).float().cpu()
    expected = artefact.golden_output
    error = ((output - expected).abs().max() / expected.abs().max()).item()
    allowed = TOLERANCE[precision]
    if not error <= allowed:  # NaN too
        raise LoadError(
            f"{artefact.metadata.name} on {device} misses its golden example in {precision}: "
            f"relative error {error:.2g}, allowed {allowed:g}; the file or the device is faulty"
        )
