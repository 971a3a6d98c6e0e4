"""The exported file of a network: a zip with its programs, metadata and golden example.

A ``.pt`` is TorchScript with further files in its folder ``extra``:

``model.json``                           the ``Metadata``
``golden_input.f32``                     one input of the network, little-endian float32 in C order
``golden_output.f32``                    eager PyTorch's output for it
``openvino.xml``, ``openvino.bin``       the same network in OpenVINO's format, if it was converted
``int8.xml``, ``int8.bin``               the same in int8, if it was asked for and passed its gate
``int8_output.f32``                      its output for ``golden_input.f32``

The offsets of constants in an ``.xml`` count from the start of the whole file, so OpenVINO uses the
weights that TorchScript has, and ``.bin`` holds only the constants that are not among those.

An archive of int8 alone has a zip of only the metadata, the golden example and int8.
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

_EXTRA = "extra"


@dataclass(frozen=True)
class Artefact:
    """``golden_output`` is eager PyTorch's output for ``golden_input``, both float32."""

    path: Path
    metadata: Metadata
    golden_input: torch.Tensor
    golden_output: torch.Tensor

    @property
    def is_int8_alone(self) -> bool:
        """Whether its only network is the one in int8."""
        with zipfile.ZipFile(self.path) as file:
            return all(Path(name).parent.name == _EXTRA for name in file.namelist())

    def int8_output(self) -> torch.Tensor:
        """What the network in int8 gave for ``golden_input`` at export. Raises LoadError.

        Every byte of the file is checked: outputs of int8 differ too much between CPUs to show a
        small damage.
        """
        try:
            with zipfile.ZipFile(self.path) as file:
                damaged = file.testzip()
            [output] = read_files(self.path, "int8_output.f32")
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            raise LoadError(f"{self.path.name} has no network in int8, or is damaged") from error
        if damaged:
            raise LoadError(f"{self.path.name} is damaged: {damaged}")
        return _tensor(output, self.metadata.golden.output_shape)

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
        extra = {path.name: str(path) for path in paths if path.parent.name == _EXTRA}
        return [file.read(extra[name]) for name in names]


def _incomplete(path: Path) -> LoadError:
    return LoadError(f"{path.name} has no specification: export it with `make export`")


def _not_torchscript(path: Path) -> LoadError:
    return LoadError(f"{path.name} is not a TorchScript file, or is damaged")


def _tensor(data: bytes, shape: Sequence[int]) -> torch.Tensor:
    """Little-endian float32 bytes -> tensor."""
    return torch.frombuffer(bytearray(data), dtype=torch.float32).view(*shape)
