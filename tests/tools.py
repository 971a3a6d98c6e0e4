"""What the tests of the page and of the examples need besides Python: Debian's packages.

``python -m tests.tools`` (`make tools`) installs those that are missing, as root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# By package: where it is found, as a command or a file; any of several will do.
PACKAGES = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "cmake": ("cmake",),
    "g++": ("g++",),
    "make": ("make",),
    "nodejs": ("node",),
    "npm": ("npm",),
    "libstb-dev": ("/usr/include/stb/stb_image.h",),
    "nlohmann-json3-dev": ("/usr/include/nlohmann/json.hpp",),
}


def find(package: str) -> str | None:
    """The path of what ``package`` is needed for, or None where this machine lacks it."""
    for name in PACKAGES[package]:
        path = shutil.which(name) or (name if Path(name).is_file() else None)
        if path is not None:
            return path
    return None


def missing(*packages: str) -> list[str]:
    """Those of ``packages`` that this machine lacks."""
    return [package for package in packages if find(package) is None]


def require(*packages: str) -> None:
    """Skip the test, or the module, that needs what is missing; in CI nothing may be."""
    lacking = missing(*packages)
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(f"{', '.join(lacking)} missing: .ci/run should have run `make tools`")
    if lacking:
        pytest.skip(
            f"needs {', '.join(lacking)}: `make tools` installs it", allow_module_level=True
        )


def main() -> int:
    lacking = missing(*PACKAGES)
    if not lacking:
        return 0
    print(f"installing from Debian: {' '.join(lacking)}", flush=True)
    sudo = ["sudo"] if os.geteuid() else []
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *lacking]):
        apt = [*sudo, "apt-get", "-qq", *command]
        status = subprocess.run(apt, env=environment, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
