"""Module -> ``.pt2``: an ``ExportedProgram``, the successor of TorchScript.

It has the extra files of the ``.pt``. Those of ``torch.export.save`` are text, so the golden
example is in base64: ``golden_input.f32.base64`` and ``golden_output.f32.base64``.
"""

from __future__ import annotations

import base64
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from export.checkpoints import Loaded
from export.trace import simplified_or_same
from export.untrained import example_input


def save_program(loaded: Loaded, pt: Path, path: Path) -> dict[str, str]:
    """Export the network of ``pt`` into ``path``, with dynamic sizes.

    Returns ``{}``, or ``{"failed": reason}`` if ``torch.export`` cannot take the network.
    """
    example = example_input(loaded.spec, *loaded.network.input_sizes(loaded.spec).trace)
    # Networks and torch.export itself warn of what the proof decides.
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        try:
            simple = simplified_or_same(loaded, example, loaded(example))
            program = torch.export.export(simple, (example,), dynamic_shapes=(_dynamic(loaded),))
            torch.export.save(program, path, extra_files=_extra_files(pt))
        except Exception as error:  # noqa: BLE001  # the network is the user's
            first = next(iter(str(error).strip().splitlines()), "no message")
            return {"failed": f"torch.export: {type(error).__name__}: {first[:200]}"}
    return {}


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


def _extra_files(pt: Path) -> dict[str, str]:
    """The extra files of ``pt``, as text."""
    with zipfile.ZipFile(pt) as archive:
        folder = f"{archive.namelist()[0].split('/')[0]}/extra"
        files = {"model.json": archive.read(f"{folder}/model.json").decode()}
        for name in ("golden_input.f32", "golden_output.f32"):
            data = archive.read(f"{folder}/{name}")
            files[f"{name}.base64"] = base64.b64encode(data).decode()
    return files
