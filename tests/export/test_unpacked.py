"""An archive is complete: unpacked elsewhere, it answers in float32 like eager PyTorch."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from export.networks import registered
from handlers.pictures.resample import resample
from handlers.settings import VARIABLES
from handlers.tasks.translate import to_image
from tests.tensors import to_tensor

pytestmark = pytest.mark.slow

# What TorchServe's worker does with an unpacked archive, without its socket.
WORKER = """
import base64, importlib, importlib.util, json, sys
from pathlib import Path
folder, jpeg = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
sys.path.insert(0, str(folder))
from ts.context import Context, RequestProcessor
from ts.utils.util import get_yaml_config, list_classes_from_module
assert importlib.util.find_spec("export") is None
manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
model = manifest["model"]
context = Context(
    model["modelName"], str(folder), manifest, 1, None, "0.12.0",
    model_yaml_config=get_yaml_config(str(folder / model["configFile"])),
)
entry = importlib.import_module(Path(model["handler"]).stem)
[handler_class] = list_classes_from_module(entry)
handler = handler_class()
handler.initialize(context)
context.request_processor = [RequestProcessor({"host": "here", "content-type": "image/jpeg"})]
[body] = handler.handle([{"body": bytearray(jpeg)}], context)
code_from = {m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "handlers"}
print(json.dumps({
    "status": context.get_response_status(0)[0],
    "headers": context.get_response_headers(0),
    "body": base64.b64encode(body).decode(),
    "code_from": sorted(code_from),
}))
"""

RESNET101, CYCLEGAN = (registered()[name].spec() for name in ("resnet101", "cyclegan"))

Ask = Callable[[str, bytes], dict[str, Any]]


@pytest.fixture
def ask(model_store: Path, tmp_path: Path) -> Ask:
    """``ask("resnet101", jpeg)`` returns status, headers and body from the archive's handler."""

    def answer(name: str, jpeg: bytes) -> dict[str, Any]:
        folder = tmp_path / "unpacked"
        zipfile.ZipFile(model_store / f"{name}.mar").extractall(folder)
        (tmp_path / "picture.jpg").write_bytes(jpeg)
        command = [sys.executable, "-I", "-c", WORKER, str(folder), "picture.jpg"]
        environment = {**os.environ, VARIABLES["precision"]: "float32"}
        run = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, check=True, timeout=120
        )
        reply: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        assert reply["code_from"]
        assert all(Path(file).is_relative_to(folder / "handlers") for file in reply["code_from"])
        assert reply["status"] == 200
        assert reply["headers"]["x-model-weights"] == "untrained"
        return reply

    return answer


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_resnet101(ask: Ask, resnet101: nn.Module, photographs: dict[str, Image.Image]) -> None:
    jpeg = _jpeg(photographs["chelsea"])
    reply = ask("resnet101", jpeg)
    assert reply["headers"]["content-type"] == "application/json"
    predictions = json.loads(base64.b64decode(reply["body"]))["predictions"]
    with torch.inference_mode():
        logits = resnet101(to_tensor(RESNET101, resample(RESNET101, _decoded(jpeg)))[None])[0]
    expected, classes = logits.softmax(0).topk(5)
    assert [p["class_id"] for p in predictions] == classes.tolist()
    assert [p["probability"] for p in predictions] == pytest.approx(expected.tolist(), abs=1e-4)


def test_cyclegan(ask: Ask, cyclegan: nn.Module, photographs: dict[str, Image.Image]) -> None:
    jpeg = _jpeg(photographs["coffee"])
    reply = ask("cyclegan", jpeg)
    assert reply["headers"]["content-type"] == "image/png"
    picture = _decoded(base64.b64decode(reply["body"]))
    with torch.inference_mode():
        expected = to_image(
            cyclegan(to_tensor(CYCLEGAN, resample(CYCLEGAN, _decoded(jpeg)))[None])[0]
        )
    assert picture.size == expected.size == (384, 256)
    assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= 1
