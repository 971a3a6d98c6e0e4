"""Runs both targets, one after the other: ``python -m tools.fuzz --seconds 60``."""

from __future__ import annotations

import sys

from tools.fuzz import harness

if __name__ == "__main__":
    # The decoder has far more paths to reach.
    sys.exit(harness.main({"tools.fuzz.decode": 3, "tools.fuzz.request": 1}))
