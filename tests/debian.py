"""Skips the tests whose Debian packages are not installed."""

from __future__ import annotations

import os

import pytest

from tools.debian import missing


def require(*packages: str) -> None:
    """Skip the test, or the module, unless ``packages`` are installed; in CI, fail."""
    lacking = ", ".join(missing(*packages))
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(f"{lacking} missing: .ci/run should have run `make tools`")
    if lacking:
        pytest.skip(f"needs {lacking}: `make tools` installs it", allow_module_level=True)
