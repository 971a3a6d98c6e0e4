"""The one error of the benchmarks."""

from __future__ import annotations


class BenchError(Exception):
    """Something could not be measured; the message says what and why."""
