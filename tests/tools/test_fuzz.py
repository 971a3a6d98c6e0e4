"""Inputs of earlier findings stay fixed, and the fuzzer finds bugs that are planted."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.fuzz import decode, request
from tools.fuzz.harness import ROOT, kept

pytestmark = pytest.mark.slow

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is for Linux on x86_64"
)

# The code that a target runs for inputs with a certain first byte, and the name of the finding.
BUGS = {
    "an exception": ("raise KeyError('planted')", "KeyError-planted-check"),
    "a crash": ("os.abort()", "crash-"),
    "a slow input": ("while time.process_time() - start < 2.1: pass", "slow"),
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("path", [*kept("decode"), *kept("request")], ids=lambda path: path.stem)
def test_earlier_findings_stay_fixed(path: Path) -> None:
    target = {"decode": decode, "request": request}[path.name.partition("-")[0]]
    target.check(path.read_bytes())


@needs_atheris
def test_the_command_runs_both_targets_and_finds_nothing(tmp_path: Path) -> None:
    done = run("-m", "tools.fuzz", "--seconds", "3", "--findings", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    ends = re.findall(r"^(\w+): (\d+) inputs.*found nothing$", done.stdout, re.MULTILINE)
    assert [target for target, _ in ends] == ["decode", "request"]
    assert all(int(inputs) > 100 for _, inputs in ends)
    assert list(tmp_path.iterdir()) == []


@needs_atheris
@pytest.mark.parametrize(("bug", "name"), BUGS.values(), ids=BUGS)
def test_a_planted_bug_is_found_and_its_input_kept(tmp_path: Path, bug: str, name: str) -> None:
    (tmp_path / "planted.py").write_text(f"""if True:
        import os, time
        def seeds():
            yield b"?"
        def check(data):
            start = time.process_time()
            if data.startswith(b"!"):
                {bug}
    """)
    findings = tmp_path / "findings"
    code = "import sys; from tools.fuzz.harness import main; sys.exit(main({'planted': 1}))"
    done = run("-c", code, "--seconds", "3", "--findings", str(findings), PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    (saved,) = findings.iterdir()
    assert saved.name.startswith(f"planted-{name}")
    assert saved.read_bytes().startswith(b"!")
    assert name in done.stdout
