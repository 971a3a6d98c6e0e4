"""The Debian packages that the tests of the page, the examples, the alerts and the image need.

``python -m tools.debian`` (`make tools`) installs those that are missing, as root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# By package: a command or file that it provides; any one of several is enough.
PACKAGES = {
    "bubblewrap": ("bwrap",),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "cmake": ("cmake",),
    "g++": ("g++",),
    "make": ("make",),
    "nodejs": ("node",),
    "npm": ("npm",),
    "runc": ("runc", "/usr/sbin/runc"),
    "systemd": ("systemd-analyze",),
    "libstb-dev": ("/usr/include/stb/stb_image.h",),
    "prometheus": ("prometheus",),
    "nlohmann-json3-dev": ("/usr/include/nlohmann/json.hpp",),
}


def find(package: str) -> str | None:
    """The path of the command or file that ``package`` provides, or None if it is missing."""
    for name in PACKAGES[package]:
        path = shutil.which(name) or (name if Path(name).is_file() else None)
        if path is not None:
            return path
    return None


def missing(*packages: str) -> list[str]:
    """The members of ``packages`` that are not installed on this machine."""
    return [package for package in packages if find(package) is None]


def main() -> int:
    packages = missing(*PACKAGES)
    if not packages:
        return 0
    print(f"installing Debian packages: {' '.join(packages)}", flush=True)
    sudo = ["sudo"] if os.geteuid() else []
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        apt = [*sudo, "apt-get", "-qq", *command]
        status = subprocess.run(apt, env=environment, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
