"""What someone sees who has just cloned the project."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from serving import verify
from serving.runfolder import RunFolder


def test_demo_without_network(
    serving: Any, make_config: Any, tmp_path: Path, model_store: Path
) -> None:
    config = make_config(tmp_path, model_store)
    where = ("--config", config, "--run-dir", tmp_path / "run")
    run = serving(
        "demo", "--once", *where, TORCH_HOME=str(tmp_path), HTTPS_PROXY="http://127.0.0.1:9"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "cannot be downloaded" in run.stderr
    assert "UNTRAINED networks" in run.stdout
    bars = [line for line in run.stdout.splitlines() if " % " in line]
    assert len(bars) == 5
    assert "█" in bars[0]
    assert "curl -T photo.jpg" in run.stdout
    with Image.open(tmp_path / "run" / "before_after.png") as picture:
        assert picture.size == (2 * 384 + 8, 256)
    assert not (tmp_path / "run" / "server.json").exists()


def test_verify_says_that_it_needs_the_published_weights(serving: Any, server: Any) -> None:
    run = serving("verify", "--config", server.config.path, "--run-dir", server.run.path)
    assert run.returncode == 1
    assert (
        "resnet101 serves the weights untrained; the book's numbers need IMAGENET1K_V1"
        in run.stderr
    )


def test_verify_tells_other_numbers_from_the_books(
    server: Any, jpeg: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """The book's weights are not here: its comparison must at least fail on others."""
    assert not verify.check_bobby(server.api, jpeg)
    said = capsys.readouterr().out
    assert "golden retriever" in said
    assert said.count("differs") == 5


def test_verify_measures_the_zebra(
    server: Any, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    pictures = []
    for size in ((1500, 1220), (1500, 1200)):
        buffer = io.BytesIO()
        photographs["coffee"].resize(size).save(buffer, "JPEG")
        pictures.append(buffer.getvalue())
    assert verify.check_horse(server.api, pictures[0], RunFolder(tmp_path))
    assert not verify.check_horse(server.api, pictures[1], RunFolder(tmp_path))


def test_verify_without_a_server(
    serving: Any, make_config: Any, tmp_path: Path, model_store: Path
) -> None:
    config = make_config(tmp_path, model_store)
    run = serving("verify", "--config", config, "--run-dir", tmp_path / "run")
    assert run.returncode == 1
    assert "no server answers: `make start` first" in run.stderr
