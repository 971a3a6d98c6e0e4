"""The choice of the floating-point type that a network runs in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from handlers.errors import LoadError


def choose(
    wanted: str, device: torch.device, gate: Mapping[str, Any], *, int8_alone: bool = False
) -> tuple[str, str]:
    """The precision to run in, and why.

    ``wanted`` is one of ``handlers.settings.PRECISIONS``. ``auto`` means the reduced precision that
    the device supports natively if the weights passed the accuracy gate for it at export, else
    float32; it never means int8 unless the artefact has ``int8_alone``. ``gate`` is
    ``Metadata.precisions``. Raises LoadError for int8 that did not pass, and for another precision
    than the artefact has.
    """
    if int8_alone:
        if wanted not in ("auto", "int8"):
            raise LoadError(
                f"this archive has int8 alone, not {wanted}: export it without INT8_ONLY"
            )
        return "int8", f"this archive has int8 alone, {_int8_verdict(gate)}"
    if wanted == "int8":
        return "int8", f"as the configuration says, {_int8_verdict(gate)}"
    if wanted != "auto":
        return wanted, "as the configuration says"
    reduced = native(device)
    if reduced is None:
        return "float32", f"this {device.type} supports no reduced precision natively"
    figures = gate.get(reduced)
    if figures is None:
        return "float32", f"the artefact has no gate result for {reduced}: export it again"
    if not figures["passed"]:
        return "float32", f"these weights failed the gate for {reduced}: {figures['summary']}"
    return reduced, f"native here, and the weights passed the gate: {figures['summary']}"


def _int8_verdict(gate: Mapping[str, Any]) -> str:
    figures = gate.get("int8")
    if figures is None:
        raise LoadError("the artefact has no network in int8: make export INT8=FOLDER")
    if not figures["passed"]:
        raise LoadError(f"these weights failed the gate for int8: {figures['summary']}")
    return f"which passed the gate: {figures['summary']}"


def native(device: torch.device) -> str | None:
    """The reduced precision that ``device`` has instructions for."""
    if device.type == "cuda":
        return "float16"
    # Without these instructions oneDNN converts to float32 and back, or uses reference kernels.
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # ONEDNN_MAX_CPU_ISA can hide the instructions from oneDNN, so ask oneDNN too.
    return "bfloat16" if has_bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
