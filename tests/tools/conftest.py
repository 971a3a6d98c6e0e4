"""Runs the tools as a person does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.running import Command, run_module

Completed = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def tool() -> Command:
    """Runs ``python -m tools.NAME ...`` to its end and captures what it prints."""

    def call(*arguments: str | Path, **environment: str) -> Completed:
        return run_module(f"tools.{arguments[0]}", *arguments[1:], **environment)

    return call
