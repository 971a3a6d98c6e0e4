"""Runs a script of ours in a fresh process, with the installed packages alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from export.errors import ExportError


def run(
    script: Path, *arguments: Path, scratch: Path, timeout_s: float, late: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``python -I script arguments``, its output as text.

    ``scratch``, an absolute path, is its folder for temporary files: tempfile tests that with a
    file, which an interrupt would leave behind. Raises ExportError(``late``) after ``timeout_s``.
    """
    try:
        return subprocess.run(
            [sys.executable, "-I", str(script), *(str(path.resolve()) for path in arguments)],
            cwd=scratch,
            env={**os.environ, "TMPDIR": str(scratch), **environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(late) from error


def last_line(run: subprocess.CompletedProcess[str]) -> str:
    """The last line that the process wrote to stderr, or an empty string."""
    return "".join(run.stderr.strip().splitlines()[-1:])
