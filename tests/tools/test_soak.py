"""Memory after thousands of mixed requests; `make soak` does the same for any time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.config import Config
from serving.runfolder import RunFolder
from tests.archives import copy_changed
from tests.running import Command, Running
from tools.soak import Soak, draw, report

pytestmark = pytest.mark.slow

LEAK = """

_kept = []
_handle = Handler.handle


def _leaking(self, rows, context):
    _kept.extend(b"x" * 1_000_000 for _ in rows)
    return _handle(self, rows, context)


Handler.handle = _leaking
"""


def test_memory_does_not_grow(server: Running, tmp_path: Path) -> None:
    result = Soak(server.config, server.run, valid=0.1).run(count=1000)
    print(report(result))
    assert result.requests == 1000
    assert result.faults() == []
    draw(result, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def test_a_leak_is_found(
    serving: Command, make_config: Callable[..., Path], model_store: Path, tmp_path: Path
) -> None:
    store = tmp_path / "model_store"
    store.mkdir()
    archive = model_store / "resnet101.mar"
    copy_changed(
        archive, store / archive.name, "torchserve.py", lambda entry: entry + LEAK.encode()
    )
    config = make_config(tmp_path, store, load_models="resnet101.mar")
    where = ("--config", config, "--run-dir", tmp_path / "run")
    started = serving("start", *where, "--device", "cpu")
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        result = Soak(Config.read(config), RunFolder(tmp_path / "run"), valid=0).run(count=750)
    finally:
        serving("stop", *where)
    assert result.requests == 750
    (fault,) = result.faults()
    assert fault.startswith("memory grew by")
