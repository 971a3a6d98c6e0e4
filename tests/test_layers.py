"""Which package may import which: the contracts in pyproject.toml hold, and each is checked."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT), "--no-logo", "--no-cache", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_contracts_hold() -> None:
    run = lint(ROOT)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    ("module", "imported", "broken"),
    [
        ("handlers/errors.py", "export.errors", "tools > deploy"),
        ("vision_client/errors.py", "handlers.errors", "tools > deploy"),
        ("export/errors.py", "serving.errors", "tools > deploy"),
        ("serving/errors.py", "export.errors", "tools > deploy"),
        ("serving/errors.py", "deploy.ray", "tools > deploy"),
        ("deploy/ray/__init__.py", "tools.demo", "tools > deploy"),
        ("export/errors.py", "vision_client", "export imports"),
        ("serving/errors.py", "vision_client.cli", "serving imports"),
        ("handlers/errors.py", "ts.context", "TorchServe's types"),
        ("handlers/errors.py", "ray", "Ray stays"),
        ("handlers/errors.py", "handlers.request", "No cycles"),
    ],
)
def test_a_forbidden_import_is_found(
    tmp_path: Path, module: str, imported: str, broken: str
) -> None:
    for package in CONFIG["root_packages"]:
        folder = ROOT / package if (ROOT / package).exists() else ROOT / "client" / package
        shutil.copytree(folder, tmp_path / package, ignore=shutil.ignore_patterns("static"))
    with (tmp_path / module).open("a") as file:
        file.write(f"\nimport {imported}\n")
    run = lint(tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
    (name,) = [c["name"] for c in CONFIG["contracts"] if c["name"].startswith(broken)]
    assert f"{name} BROKEN" in run.stdout
