"""Handlers with exported networks, a tiny artefact, and encoded pictures."""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from ts.service import Service

from handlers.stages import REPORTS
from handlers.torchserve import Handler
from tests.handlers.support import (
    Decoders,
    Load,
    Predict,
    Reply,
    Save,
    Sent,
    WriteArtefact,
    write_artefact,
)


@pytest.fixture(scope="session")
def saved() -> Save:
    def save(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        return buffer.getvalue()

    return save


@pytest.fixture(scope="session")
def chelsea(photographs: dict[str, Image.Image], saved: Save) -> bytes:
    """A small photograph, 150x100, as PNG."""
    return saved(photographs["chelsea"].resize((150, 100)))


@pytest.fixture(scope="session")
def load() -> Iterator[Load]:
    """Initialises handlers with TorchServe's own context.

    The default precision is float32, because ``auto`` depends on the CPU.
    """
    loaded: list[Handler] = []

    def initialize(
        pt: Path,
        gpu: int | None = None,
        yaml: Mapping[str, Any] | None = None,
        precision: str = "float32",
    ) -> Handler:
        handler = Handler()
        manifest = {"model": {"serializedFile": pt.name}}
        # A batch size of 2 warms up the same code as a larger one, in less time.
        service = Service(pt.stem, str(pt.parent), manifest, handler.handle, gpu, 2)
        configured = dict(yaml or {})
        configured["handler"] = {"precision": precision, **configured.get("handler", {})}
        service.context.model_yaml_config = configured
        handler.initialize(service.context)
        loaded.append(handler)
        return handler

    yield initialize
    for handler in loaded:
        handler.service.close()


@pytest.fixture
def artefact(tmp_path: Path) -> WriteArtefact:
    """Writes a ``.pt`` as export does, of a network with one operation.

    ``changes`` replace extra files by name, with ``__`` for the dot; an empty one is left out.
    """
    return lambda **changes: write_artefact(tmp_path / "tiny.pt", **changes)


@pytest.fixture
def decoders() -> Decoders:
    """The decode processes of this test; handlers of other tests have their own."""

    def every() -> list[psutil.Process]:
        processes = []
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # a killed process that is not yet waited for
                if "handlers.pictures" in " ".join(child.cmdline()):
                    processes.append(child)
        return processes

    others = every()
    return lambda: [process for process in every() if process not in others]


@pytest.fixture(scope="session")
def resnet(model_store: Path, load: Load) -> Handler:
    return load(model_store / "resnet101.pt")


@pytest.fixture(scope="session")
def cyclegan(model_store: Path, load: Load) -> Handler:
    return load(model_store / "cyclegan.pt")


@pytest.fixture(scope="session")
def bfloat16_resnet(model_store: Path, load: Load) -> Handler:
    """Runs in bfloat16 on every CPU: PyTorch emulates missing instructions."""
    return load(model_store / "resnet101.pt", precision="bfloat16")


@pytest.fixture(scope="session")
def bfloat16_cyclegan(model_store: Path, load: Load) -> Handler:
    return load(model_store / "cyclegan.pt", precision="bfloat16")


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Receives what the workers of this test report to their supervisor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        path = f"{tmp_path}/r"
        receiver.bind(path)
        receiver.settimeout(10)
        monkeypatch.setenv(REPORTS, path)
        yield receiver


@pytest.fixture(scope="session")
def predict() -> Predict:
    """Sends one batch through TorchServe's own parsing. A gRPC call has no headers."""

    def batch(handler: Handler, *sent: Sent) -> list[Reply]:
        service = Service("model", "/", {}, handler.handle, None, len(sent))
        messages = [_message(i, row, headers) for i, (row, headers) in enumerate(sent)]
        processors, rows, ids = service.retrieve_data_for_inference(messages)
        context = service.context
        context.request_processor, context.request_ids = processors, ids
        bodies = handler.handle(rows, context)
        assert len(bodies) == len(sent)
        return [
            (context.get_response_status(i)[0], context.get_response_headers(i), bytes(body))
            for i, body in enumerate(bodies)
        ]

    return batch


def _message(i: int, row: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """One request as TorchServe's frontend sends it to the worker."""
    return {
        "requestId": str(i).encode(),
        "parameters": [
            {"name": name, "value": value, "contentType": "application/octet-stream"}
            for name, value in row.items()
        ],
        "headers": [
            {"name": name.encode(), "value": value.encode()} for name, value in headers.items()
        ],
    }
