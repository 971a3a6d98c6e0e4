"""The test suite itself: it ends however it is started and whatever hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

CHILD = """
import signal, subprocess, sys
import tests.conftest
ask = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
subprocess.run([sys.executable, "-c", ask], check=True)
"""


def test_children_obey_sigint_even_if_the_suite_was_started_with_it_ignored() -> None:
    """`make test &` in a script ignores SIGINT: tests that end children with it would hang."""
    run = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", CHILD],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout == "True\n"


def test_a_hanging_test_fails_and_shows_where(tmp_path: Path) -> None:
    hanging = tmp_path / "test_hanging.py"
    hanging.write_text("import threading\n\ndef test_it():\n    threading.Event().wait()\n")
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), str(hanging)]
    run = subprocess.run(
        [*command, "-o", "timeout=2"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "Timeout" in run.stdout
    assert "threading.Event().wait()" in run.stdout


def test_every_test_has_a_limit(pytestconfig: pytest.Config) -> None:
    assert 0 < float(pytestconfig.getini("timeout")) <= 600
