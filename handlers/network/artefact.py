"""The ``.pt`` file: the TorchScript network with its metadata and golden example."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from handlers.errors import LoadError
from handlers.metadata import Metadata


@dataclass(frozen=True)
class Artefact:
    """``golden_output`` is eager PyTorch's output for ``golden_input``, both float32."""

    script: torch.jit.ScriptModule
    metadata: Metadata
    golden_input: torch.Tensor
    golden_output: torch.Tensor


def read(path: Path) -> Artefact:
    """Load ``path`` on the CPU, in eval mode. Raises LoadError if it is not a complete export."""
    files = {"model.json": b"", "golden_input.f32": b"", "golden_output.f32": b""}
    try:
        with warnings.catch_warnings():
            # PyTorch warns on every load that TorchScript is deprecated.
            warnings.simplefilter("ignore")
            script = torch.jit.load(path, map_location="cpu", _extra_files=files)
    except (RuntimeError, ValueError) as error:
        raise LoadError(f"{path.name} is not a TorchScript file, or is damaged") from error
    if not all(files.values()):
        raise LoadError(f"{path.name} has no specification: export it with `make export`")
    try:
        metadata = Metadata.from_json(files["model.json"])
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(
            f"{path.name} was exported by another version: run `make export` again ({error})"
        ) from error
    golden = metadata.golden
    return Artefact(
        script.eval(),
        metadata,
        _tensor(files["golden_input.f32"], golden.input_shape),
        _tensor(files["golden_output.f32"], golden.output_shape),
    )


def _tensor(data: bytes, shape: Sequence[int]) -> torch.Tensor:
    """Little-endian float32 bytes -> tensor."""
    return torch.frombuffer(bytearray(data), dtype=torch.float32).view(*shape)
