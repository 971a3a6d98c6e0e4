"""Module -> ``.pt2``: an ``ExportedProgram``, the successor of TorchScript.

It has the metadata and the golden example of the ``.pt``. Extra files of ``torch.export.save`` are
text, so the golden example is in base64: ``golden_input.f32.base64``, ``golden_output.f32.base64``.
"""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from export.checkpoints import Loaded
from export.trace import Traced, raw
from export.untrained import example_input
from handlers.metadata import Metadata


def save(loaded: Loaded, traced: Traced, metadata: Metadata, path: Path) -> str:
    """Export ``traced.module`` into ``path``, with dynamic sizes.

    Returns why ``torch.export`` cannot take the network, or an empty string.
    """
    example = example_input(loaded.spec, *loaded.network.input_sizes(loaded.spec).trace)
    files = {"model.json": json.dumps(metadata.to_map(), indent=1)}
    for name, tensor in vars(traced.golden).items():
        files[f"golden_{name}.f32.base64"] = base64.b64encode(raw(tensor)).decode()
    # Networks and torch.export itself warn of what the proof decides.
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        try:
            program = torch.export.export(
                traced.module, (example,), dynamic_shapes=(_dynamic(loaded),)
            )
            torch.export.save(program, path, extra_files=files)
        except Exception as error:  # noqa: BLE001  # the network is the user's
            first = next(iter(str(error).strip().splitlines()), "no message")
            return f"torch.export: {type(error).__name__}: {first[:200]}"
    return ""


def _dynamic(loaded: Loaded) -> dict[int, Any]:
    """The dynamic dimensions of the input: the batch, and the sides that the network leaves open.

    A side in multiples is declared as such: without that, a network that adds an enlarged tensor to
    one from before it was halved could not be exported.
    """
    dynamic: dict[int, Any] = {0: Dim.DYNAMIC}
    if loaded.network.sizes:
        multiple = loaded.spec.multiple
        for axis, side in ((2, "height"), (3, "width")):
            dynamic[axis] = multiple * Dim(side) if multiple > 1 else Dim.DYNAMIC
    return dynamic
