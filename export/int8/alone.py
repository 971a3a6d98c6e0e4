"""An artefact of int8 alone: the ``.pt`` without TorchScript and the weights in float32."""

from __future__ import annotations

import zipfile
from pathlib import Path

from export.artefact import append, append_model
from handlers.network.artefact import read_files
from handlers.network.openvino import read_model

_EXAMPLE = ("golden_input.f32", "golden_output.f32", "int8_output.f32")


def write_alone(pt: Path, path: Path) -> None:
    """Write what of ``pt`` a worker needs for int8, the metadata last."""
    [metadata, *example] = read_files(pt, "model.json", *_EXAMPLE)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in zip(_EXAMPLE, example, strict=True):
            file.writestr(f"{pt.stem}/extra/{name}", content)
    append_model(path, "int8", read_model(pt, "int8"))
    append(path, {"model.json": metadata})
