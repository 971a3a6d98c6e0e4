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


def test_the_tests_of_a_group_run_in_one_process(tmp_path: Path) -> None:
    """As `make test` divides the suite; each process would start servers of its own otherwise."""
    code = """
import os, pathlib, pytest

pytestmark = pytest.mark.xdist_group("servers")

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    pathlib.Path(__file__).with_suffix(f".{number}").write_text(os.environ["PYTEST_XDIST_WORKER"])
"""
    for name in ("test_a.py", "test_b.py"):
        (tmp_path / name).write_text(code)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), str(tmp_path)]
    dry = ["make", "--dry-run", "-o", "install", "test"]
    said = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    options = said.split("-m pytest")[1].split(" -m ")[0].split()
    run = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stdout
    assert "2 workers" in run.stdout
    workers = [path.read_text() for path in tmp_path.glob("test_?.[0-9]")]
    assert len(workers) == 8
    assert len(set(workers)) == 1
