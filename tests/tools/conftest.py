"""Runs the tools as a person does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT, Command


@pytest.fixture(scope="session")
def tool() -> Command:
    """Runs ``python -m tools.NAME ...`` to its end and captures what it prints."""

    def call(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"tools.{arguments[0]}", *map(str, arguments[1:])],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call
