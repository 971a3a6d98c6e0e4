"""TorchScript -> OpenVINO's network, which CPUs run faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from export.artefact import append_model
from export.errors import ExportError
from export.network import Network


def convert(script: torch.jit.ScriptModule, network: Network, side: int) -> Any:
    """``script`` as an ``openvino.Model`` for any batch size, in float32.

    It takes any picture size too, or ``side`` x ``side`` if ``network`` takes no other. Raises
    ExportError if OpenVINO does not know one of its operations.
    """
    # openvino.convert_model does the same, and asks for permission to send telemetry.
    from openvino import PartialShape
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    try:
        decoder = TorchScriptPythonDecoder(script)  # must outlive the conversion
        model = frontend.convert(frontend.load(decoder))
        size = (-1, -1) if network.sizes else (side, side)
        model.reshape({0: PartialShape([-1, 3, *size])})
    except Exception as error:  # its extension raises errors of many kinds
        last = str(error).strip().splitlines()[-1:]
        raise ExportError(f"OpenVINO cannot convert it: {''.join(last)}") from error
    return model


def add(script: torch.jit.ScriptModule, network: Network, side: int, pt: Path) -> str:
    """Convert ``script`` and append it to ``pt``; returns why that failed, or an empty string."""
    try:
        append_model(pt, "openvino", convert(script, network, side))
    except ExportError as error:
        return str(error)
    return ""
