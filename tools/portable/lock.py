"""requirements.lock: the packages that a machine installs from it, and their wheels."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

from serving.errors import ServingError

_ENTRY = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>.*?))? \\\n"
    r"(?P<hashes>(?:    --hash=sha256:.*\n)+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Package:
    """A pinned package; ``hashes`` are those of all its files."""

    name: str
    version: str
    hashes: frozenset[str]


def read(lock: Path) -> list[Package]:
    """The packages of ``lock`` that this machine and this Python need."""
    return [
        Package(
            entry["name"],
            entry["version"],
            frozenset(re.findall("sha256:([0-9a-f]{64})", entry["hashes"])),
        )
        for entry in _ENTRY.finditer(lock.read_text())
        if entry["marker"] is None or Marker(entry["marker"]).evaluate()
    ]


def download(lock: Path, uv: str, folder: Path) -> list[Path]:
    """The wheels of ``lock`` and of ``uv``, a requirement as `uv==1.2`, below ``folder``.

    pip checks each against the lock's hashes, also those that ``folder`` has already. Wheels of
    another lock are removed. Raises ServingError if one cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    pip += ["--only-binary=:all:", "--no-cache-dir", "--progress-bar=off", "--dest", str(folder)]
    kept: set[str] = set()
    for wanted in (["--require-hashes", "--requirement", str(lock)], [uv]):
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServingError(f"the wheels cannot be downloaded:\n{done.stderr.strip()}")
        kept |= set(re.findall(r"(?:Saved|already downloaded) (\S+\.whl)", done.stdout))
    names = {Path(path).name for path in kept}
    for wheel in folder.glob("*.whl"):
        if wheel.name not in names:
            wheel.unlink()
    return sorted(folder.glob("*.whl"))
