"""Archives of a network with one operation, whose code fails when a request asks for it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from torch import nn

from export.archive import HANDLERS, handler_files
from handlers.unpacked import MANIFEST
from tests.handlers.support import tiny_metadata, write_artefact
from tests.specs import CYCLEGAN

MODEL = "tiny"
# Added to the archive's own `handlers/service.py`. The header `x-fault` is a word and perhaps a
# path: `exit PATH` ends the process unless PATH exists, which it then makes.
FAULTS = """

_well = Service.answer


def _answer(self, messages, stages=None):
    import os
    from pathlib import Path

    for message in messages:
        word, _, argument = message.headers.get("x-fault", "").partition(" ")
        if word == "sleep":
            time.sleep(float(argument))
        elif word == "exit" and not Path(argument).exists():
            Path(argument).touch()
            os._exit(3)
        elif word == "break":
            self.broken = True
    if getattr(self, "broken", False):
        raise RuntimeError("it is broken")
    return _well(self, messages, stages)


Service.answer = _answer
"""


def write(
    mar: Path,
    yaml: str,
    *,
    weights: str = "untrained",
    version: str = "1.0",
    network: nn.Module | None = None,
    **changes: bytes,
) -> Path:
    """The archive of the model ``tiny`` with the text ``yaml``; its weights have that name.

    ``network`` and ``changes`` are those of the artefact.
    """
    metadata = tiny_metadata().replace(b'"untrained"', json.dumps(weights).encode())
    metadata = metadata.replace(json.dumps(CYCLEGAN.name).encode(), json.dumps(MODEL).encode())
    pt = write_artefact(mar.with_suffix(".pt"), network, **{"model__json": metadata} | changes)
    names = {"serializedFile": "tiny.pt", "configFile": "tiny.yaml", "handler": "torchserve.py"}
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "model": {"modelName": MODEL, "modelVersion": version, **names},
    }
    with zipfile.ZipFile(mar, "w") as file:
        file.writestr(MANIFEST, json.dumps(manifest))
        file.write(pt, "tiny.pt")
        file.writestr("tiny.json", metadata)
        file.writestr("tiny.yaml", yaml)
        file.write(HANDLERS / "torchserve.py", "torchserve.py")
        for path in handler_files("translate"):
            name = str(path.relative_to(HANDLERS.parent))
            added = FAULTS if name == "handlers/service.py" else ""
            file.writestr(name, path.read_text() + added)
    return mar
