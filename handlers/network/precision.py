"""Which floating-point type a network runs in on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def choose(wanted: str, device: torch.device, gate: Mapping[str, Any]) -> tuple[str, str]:
    """The precision to run in, and why.

    ``wanted`` is one of ``handlers.settings.PRECISIONS``; ``auto`` takes the reduced one that the
    device computes natively, where these weights passed its gate at export, else float32.
    """
    if wanted != "auto":
        return wanted, "as the configuration says"
    native = _native(device)
    if native is None:
        return "float32", f"this {device.type} computes no reduced precision natively"
    figures = gate.get(native)
    if figures is None:
        return "float32", f"the artefact has no figures for {native}: export it again"
    if not figures["passed"]:
        return "float32", f"these weights failed the gate for {native}: {figures['summary']}"
    return native, f"native here, and the weights passed its gate: {figures['summary']}"


def _native(device: torch.device) -> str | None:
    if device.type == "cuda":
        return "float16"
    # Without these instructions oneDNN converts to and fro, or falls back to reference kernels.
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # oneDNN says what it may use: ONEDNN_MAX_CPU_ISA hides instructions from it.
    return "bfloat16" if has_bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
