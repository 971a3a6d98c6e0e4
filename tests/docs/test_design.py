"""docs/design.md is true: its functions exist, and a request enters each room once."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType

import pytest
import ts.service
from ts.context import RequestProcessor

import handlers
from handlers.service import Service
from handlers.settings import Settings
from handlers.torchserve import Handler

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design.md").read_text()
FUNCTIONS = re.findall(r"`([\w/]+)\.py` `([\w.]+)\(([\w, ]*)\)`", PAGE)
HANDLERS = Path(handlers.__file__).parent
# Modules that several rooms use.
SHARED = {"errors", "formats", "metadata", "service", "settings", "stages", "memory"}
WALK = ["torchserve", "request", "pictures", "network", "tasks", "torchserve"]


@pytest.mark.parametrize(("file", "name", "parameters"), FUNCTIONS)
def test_a_function_of_the_page_exists(file: str, name: str, parameters: str) -> None:
    target: object = import_module(file.replace("/", ".").removesuffix(".__init__"))
    for part in name.split("."):
        target = getattr(target, part)
    assert callable(target)
    actual = [p for p in inspect.signature(target).parameters if p != "self"]
    assert actual == parameters.split(", ")


def test_the_page_shows_every_room() -> None:
    assert len(FUNCTIONS) >= 16
    for folder in ("handlers", "export", "serving"):
        for path in (ROOT / folder).glob("[a-z]*.py"):
            assert path.stem in PAGE, path


@pytest.fixture
def service(model_store: Path) -> Iterator[Service]:
    loaded = Service(model_store / "resnet101.pt", settings=Settings(precision="float32"))
    yield loaded
    loaded.close()


def test_a_request_enters_each_room_once(service: Service, jpeg: bytes) -> None:
    rooms: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(HANDLERS):
            room = path.relative_to(HANDLERS).parts[0].removesuffix(".py")
            if room not in SHARED and rooms[-1:] != [room]:
                rooms.append(room)

    handler = Handler()
    handler.service = service
    context = ts.service.Service("resnet101", "/", {}, handler.handle, None, 1).context
    context.request_processor = [RequestProcessor({"Host": "localhost"})]
    sys.setprofile(note)
    try:
        handler.handle([{"data": jpeg, "top_k": b"3"}], context)
    finally:
        sys.setprofile(None)
    assert context.get_response_status(0)[0] == 200
    assert rooms == WALK
