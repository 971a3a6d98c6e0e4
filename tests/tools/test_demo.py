"""What a newcomer sees who has just cloned the project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.running import Command


@pytest.mark.slow
def test_demo_without_network(
    tool: Command, make_config: Callable[..., Path], tmp_path: Path, model_store: Path
) -> None:
    config = make_config(tmp_path, model_store)
    run = tool(
        "demo", "--once", "--config", config, "--run-dir", tmp_path / "run",
        TORCH_HOME=str(tmp_path), HTTPS_PROXY="http://127.0.0.1:9",
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "cannot be downloaded" in run.stderr
    assert "UNTRAINED networks" in run.stdout
    bars = [line for line in run.stdout.splitlines() if " % " in line]
    assert len(bars) == 5
    assert "█" in bars[0]
    assert "/predictions/resnet101\n" in run.stdout
    assert "/predictions/cyclegan -o translated.png\n" in run.stdout
    with Image.open(tmp_path / "run" / "before_after.png") as picture:
        assert picture.size == (2 * 384 + 8, 256)
    assert not (tmp_path / "run" / "server.json").exists()
