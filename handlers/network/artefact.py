"""The exported file of a network: a zip with its programs, metadata and golden example.

A ``.pt`` is TorchScript with further files in its folder ``extra``:

``model.json``                           the ``Metadata``
``golden_input.f32``                     one input of the network, little-endian float32 in C order
``golden_output.f32``                    eager PyTorch's output for it
``openvino.xml``, ``openvino.bin``       the same network in OpenVINO's format, if it was converted

The offsets of constants in an ``.xml`` count from the start of the whole file, so OpenVINO uses the
weights that TorchScript has, and ``.bin`` holds only the constants that are not among those.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from handlers.errors import LoadError
from handlers.metadata import Metadata


@dataclass(frozen=True)
class Artefact:
    """``golden_output`` is eager PyTorch's output for ``golden_input``, both float32."""

    path: Path
    metadata: Metadata
    golden_input: torch.Tensor
    golden_output: torch.Tensor

    def script(self) -> torch.jit.ScriptModule:
        """The TorchScript network on the CPU, in eval mode. Raises LoadError if it is damaged."""
        try:
            with warnings.catch_warnings():
                # PyTorch warns on every load that TorchScript is deprecated.
                warnings.simplefilter("ignore")
                script: torch.jit.ScriptModule = torch.jit.load(self.path, map_location="cpu")
        except (RuntimeError, ValueError) as error:
            raise _not_torchscript(self.path) from error
        return script.eval()


def read(path: Path) -> Artefact:
    """The artefact ``path``, without its programs. Raises LoadError if it is not a whole export."""
    try:
        model, golden_input, golden_output = read_files(
            path, "model.json", "golden_input.f32", "golden_output.f32"
        )
    except (OSError, zipfile.BadZipFile) as error:
        raise _not_torchscript(path) from error
    except KeyError as error:
        raise _incomplete(path) from error
    if not (model and golden_input and golden_output):
        raise _incomplete(path)
    try:
        metadata = Metadata.from_json(model)
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(
            f"{path.name} was exported by another version: run `make export` again ({error})"
        ) from error
    golden = metadata.golden
    return Artefact(
        path,
        metadata,
        _tensor(golden_input, golden.input_shape),
        _tensor(golden_output, golden.output_shape),
    )


def read_files(path: Path, *names: str) -> list[bytes]:
    """The extra files ``names`` of the artefact ``path``.

    Raises KeyError for one that it does not have, OSError or BadZipFile if it is not a whole zip.
    """
    with zipfile.ZipFile(path) as file:
        paths = map(Path, file.namelist())
        extra = {path.name: str(path) for path in paths if path.parent.name == "extra"}
        return [file.read(extra[name]) for name in names]


def _incomplete(path: Path) -> LoadError:
    return LoadError(f"{path.name} has no specification: export it with `make export`")


def _not_torchscript(path: Path) -> LoadError:
    return LoadError(f"{path.name} is not a TorchScript file, or is damaged")


def _tensor(data: bytes, shape: Sequence[int]) -> torch.Tensor:
    """Little-endian float32 bytes -> tensor."""
    return torch.frombuffer(bytearray(data), dtype=torch.float32).view(*shape)
