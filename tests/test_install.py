"""Installation: which Pythons it takes, and what production installs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def locked(name: str) -> list[str]:
    """``package==version`` of every entry in a lock file."""
    return re.findall(r"^[\w.-]+==\S+", (ROOT / name).read_text(), re.MULTILINE)


def test_unsupported_python_is_refused() -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 10, 4, 'final', 0);"
        "runpy.run_path('install.py', run_name='__main__')"
    )
    command = ["python3", "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "Python 3.10.4" in run.stderr
    assert "3.11, 3.12 or 3.13 is needed" in run.stderr


def test_production_installs_no_test_or_build_tools() -> None:
    production, development = set(locked("requirements.lock")), set(locked("requirements-dev.lock"))
    assert production < development
    tools = {"pytest", "mypy", "ruff", "hypothesis", "playwright", "hatchling", "grpcio-tools"}
    assert tools < {entry.partition("==")[0] for entry in development}
    assert not tools & {entry.partition("==")[0] for entry in production}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_pins_every_package_by_hash_and_names_no_registry(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert len(re.findall(r"^\S.*\n    --hash=sha256:", text, re.MULTILINE)) == len(locked(name))
    assert len(locked(name)) > 50


def test_no_usage_data_is_sent() -> None:
    """OpenVINO and NNCF send usage data if openvino-telemetry can be imported."""
    code = "import openvino, nncf, sys; print('openvino_telemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    for lock in ("requirements.lock", "requirements-dev.lock"):
        [line] = re.findall("^openvino-telemetry==.*$", (ROOT / lock).read_text(), re.MULTILINE)
        assert "sys_platform == 'never'" in line
