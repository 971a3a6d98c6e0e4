"""Types of the handlers' fixtures, and requests as TorchServe delivers them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from torch import nn

from handlers.errors import RequestError
from handlers.metadata import Golden, Metadata, Weights
from handlers.pictures.limits import LIMITS, Limits
from handlers.request import Upload, read
from handlers.torchserve import Handler, header_values, message
from tests.specs import CYCLEGAN

# One row of TorchServe's batch: its fields and its headers.
Sent = tuple[Mapping[str, Any], Mapping[str, str]]
# Status, headers and body of one answer.
Reply = tuple[int, dict[str, str], bytes]
# ``predict(handler, *sent)`` passes rows to a handler as one batch.
Predict = Callable[..., list[Reply]]
# ``save(image, format, **options)``: the file that Pillow writes.
Save = Callable[..., bytes]
# The decode processes that the current test has started.
Decoders = Callable[[], list[psutil.Process]]


def tiny_metadata(**engines: Any) -> bytes:
    """The ``model.json`` of the tiny artefact."""
    metadata = Metadata(
        name=CYCLEGAN.name,
        spec=CYCLEGAN,
        weights=Weights("untrained", "a test", False, None, None),
        golden=Golden((1, 3, 8, 8), (1, 3, 8, 8)),
        precisions={},
        engines=engines,
        torch=torch.__version__,
    )
    return json.dumps(metadata.to_map()).encode()


def raw(tensor: torch.Tensor) -> bytes:
    """The tensor as golden examples are stored: little-endian float32."""
    data: bytes = tensor.detach().numpy().astype("<f4").tobytes()
    return data


def write_artefact(path: Path, network: nn.Module | None = None, **changes: bytes) -> Path:
    """The fixture ``artefact`` for any scope; ``network`` is one operation, tanh if it is None."""
    network = network or nn.Tanh()
    example = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8)
    files = {
        "model.json": tiny_metadata(),
        "golden_input.f32": raw(example),
        "golden_output.f32": raw(network(example)),
    }
    files |= {name.replace("__", "."): data for name, data in changes.items()}
    traced = torch.jit.trace(network, example)
    torch.jit.save(traced, path, {name: data for name, data in files.items() if data})
    return path


REST = {"Host": "localhost:8080"}


class Load(Protocol):
    """Loads ``pt`` into a handler, with ``yaml`` as the model's configuration."""

    def __call__(
        self,
        pt: Path,
        gpu: int | None = None,
        yaml: Mapping[str, Any] | None = None,
        precision: str = "float32",
    ) -> Handler: ...


class WriteArtefact(Protocol):
    """Writes the ``.pt`` of a tiny network; ``changes`` replace its extra files."""

    def __call__(self, **changes: bytes) -> Path: ...


def body(data: object, headers: Mapping[str, str] | None = None) -> Sent:
    """A request over REST whose body is ``data``."""
    return {"body": data}, {**REST, **(headers or {})}


def form(**fields: bytes) -> Sent:
    """A request over REST with form fields."""
    return fields, REST


def upload(
    row: Mapping[str, Any], headers: Mapping[str, object], limits: Limits = LIMITS
) -> Upload:
    """The picture and options of one row. Raises the RequestError that answers the request."""
    received = message(row, header_values(headers))
    if isinstance(received, RequestError):
        raise received
    return read(received, limits)
