"""The choice of the floating-point type that a network runs in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def choose(wanted: str, device: torch.device, gate: Mapping[str, Any]) -> tuple[str, str]:
    """The precision to run in, and why.

    ``wanted`` is one of ``handlers.settings.PRECISIONS``. ``auto`` means the reduced precision that
    the device supports natively if the weights passed the accuracy gate for it at export, else
    float32. ``gate`` is ``Metadata.precisions``.
    """
    if wanted != "auto":
        return wanted, "as the configuration says"
    native = _native(device)
    if native is None:
        return "float32", f"this {device.type} supports no reduced precision natively"
    figures = gate.get(native)
    if figures is None:
        return "float32", f"the artefact has no gate result for {native}: export it again"
    if not figures["passed"]:
        return "float32", f"these weights failed the gate for {native}: {figures['summary']}"
    return native, f"native here, and the weights passed the gate: {figures['summary']}"


def _native(device: torch.device) -> str | None:
    if device.type == "cuda":
        return "float16"
    # Without these instructions oneDNN converts to float32 and back, or uses reference kernels.
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # ONEDNN_MAX_CPU_ISA can hide the instructions from oneDNN, so ask oneDNN too.
    return "bfloat16" if has_bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
