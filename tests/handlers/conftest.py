"""The two real handlers on a real export, and pictures as bytes."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image
from torch import nn
from ts.service import Service

from handlers.metadata import Golden, Weights
from handlers.torchserve import Handler
from tests.specs import CYCLEGAN

# Status, headers and body of one request's answer.
Reply = tuple[int, dict[str, str], bytes]
# What TorchServe hands over for one request: its row, and the headers that the client sent.
Sent = tuple[Mapping[str, Any], Mapping[str, str]]


@pytest.fixture(scope="session")
def saved() -> Callable[..., bytes]:
    """``saved(image, format, **how)``: the bytes Pillow writes."""

    def save(image: Image.Image, format: str = "PNG", **how: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, format, **how)
        return buffer.getvalue()

    return save


@pytest.fixture(scope="session")
def chelsea(photographs: dict[str, Image.Image], saved: Callable[..., bytes]) -> bytes:
    """A small photograph, 150x100, as PNG."""
    return saved(photographs["chelsea"].resize((150, 100)))


@pytest.fixture(scope="session")
def load() -> Iterator[Callable[..., Handler]]:
    """``load(pt, gpu, yaml)``: a handler that TorchServe's own context has initialised.

    In float32 unless ``precision`` says otherwise: ``auto`` depends on the CPU, and so would the
    test.
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
        # A batch size of 2 warms up as a larger one does, in less time.
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


def raw(tensor: torch.Tensor) -> bytes:
    data: bytes = tensor.detach().numpy().astype("<f4").tobytes()
    return data


@pytest.fixture
def artefact(tmp_path: Path) -> Callable[..., Path]:
    """A ``.pt`` as export writes it, of a network of one operation; extra files by keyword."""

    def write(**changes: bytes) -> Path:
        example = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8)
        metadata = {
            "name": CYCLEGAN.name,
            "spec": dataclasses.asdict(CYCLEGAN),
            "weights": dataclasses.asdict(Weights("untrained", "a test", False, None, None)),
            "golden": dataclasses.asdict(Golden((1, 3, 8, 8), (1, 3, 8, 8))),
            "precisions": {},
            "torch": torch.__version__,
        }
        files = {
            "model.json": json.dumps(metadata).encode(),
            "golden_input.f32": raw(example),
            "golden_output.f32": raw(example.tanh()),
        }
        files |= {name.replace("__", "."): data for name, data in changes.items()}
        path = tmp_path / "tiny.pt"
        traced = torch.jit.trace(nn.Tanh(), example)
        torch.jit.save(traced, path, {name: data for name, data in files.items() if data})
        return path

    return write


@pytest.fixture
def decoders() -> Callable[[], list[psutil.Process]]:
    """The decode processes that a test has started: other tests' handlers have theirs."""

    def every() -> list[psutil.Process]:
        children = psutil.Process().children()
        return [child for child in children if "handlers.pictures" in " ".join(child.cmdline())]

    others = every()
    return lambda: [process for process in every() if process not in others]


@pytest.fixture(scope="session")
def resnet(model_store: Path, load: Callable[..., Handler]) -> Handler:
    return load(model_store / "resnet101.pt")


@pytest.fixture(scope="session")
def cyclegan(model_store: Path, load: Callable[..., Handler]) -> Handler:
    return load(model_store / "cyclegan.pt")


@pytest.fixture(scope="session")
def bfloat16_resnet(model_store: Path, load: Callable[..., Handler]) -> Handler:
    """In bfloat16 on every CPU: where it has no such instructions, PyTorch emulates them."""
    return load(model_store / "resnet101.pt", precision="bfloat16")


@pytest.fixture(scope="session")
def bfloat16_cyclegan(model_store: Path, load: Callable[..., Handler]) -> Handler:
    return load(model_store / "cyclegan.pt", precision="bfloat16")


@pytest.fixture(scope="session")
def predict() -> Callable[..., list[Reply]]:
    """``predict(handler, (row, headers), ...)``: one batch, through TorchServe's own parsing.

    ``headers`` without ``Host`` is what a gRPC caller looks like.
    """

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
