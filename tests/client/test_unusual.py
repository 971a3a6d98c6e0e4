"""The command `vision` with unusual files, streams and options; its server has one answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.conftest import LIMIT_S, Answering

pytestmark = pytest.mark.slow

VISION = str(Path(sys.executable).with_name("vision"))
PICTURE = b"\x89PNG and more"


def vision(
    *arguments: str | Path, server: Answering, redirect: str = ""
) -> subprocess.CompletedProcess[str]:
    """In a shell, with standard input and output as ``redirect`` says."""
    env = {**os.environ, "VISION_SERVER": server.url, "COLUMNS": "200"}
    return subprocess.run(
        ["bash", "-c", f'exec "$@" {redirect}', "bash", VISION, *map(str, arguments)],
        env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"the photograph")
    return path


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_photographs_are_not_overwritten(photo: Path, force: tuple[str, ...]) -> None:
    arguments = ("translate", photo.parent, "-o", photo.parent, "--format", "jpeg", *force)
    with Answering.started(body=PICTURE) as server:
        run = vision(*arguments, server=server)
    assert run.returncode == 2
    assert "would replace the photograph" in run.stderr
    assert photo.read_bytes() == b"the photograph"
    assert server.asked == []
