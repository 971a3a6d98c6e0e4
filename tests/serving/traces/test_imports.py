"""Without traces, the server imports nothing for them."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import serving.commands
print(*(name for name in sys.modules if "opentelemetry" in name or "serving.traces." in name))
"""


def test_the_exporter_is_not_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["serving.traces.settings"]
