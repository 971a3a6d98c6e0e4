"""Both targets, one after the other: ``python -m tests.fuzz --seconds 60``."""

from __future__ import annotations

import sys

from tests.fuzz import harness

if __name__ == "__main__":
    # The decoder is where the depth is.
    sys.exit(harness.main({"tests.fuzz.decode": 3, "tests.fuzz.request": 1}))
