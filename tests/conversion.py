"""Tiny networks in OpenVINO's format, by the code that exports."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from export import openvino
from export.networks import registered


def converted(module: nn.Module) -> Any:
    """``module``, which takes ``(N, 3, H, W)``, as an ``openvino.Model`` for any size."""
    script = torch.jit.trace(module, torch.zeros(1, 3, 8, 8))
    return openvino.convert(script, registered()["cyclegan"], 8)
