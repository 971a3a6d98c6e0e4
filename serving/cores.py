"""The CPU cores that this process may use, which in a container are fewer than the machine's."""

from __future__ import annotations

import math
import os
from pathlib import Path

# cgroup v2, as a container sees its own: "max 100000", or microseconds of CPU per period.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available(quota: Path = _QUOTA) -> int:
    """Whole cores, at least 1: by affinity, and by the container's CPU quota rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        allowed, period = quota.read_text().split()
        limit = math.ceil(int(allowed) / int(period))
    except (OSError, ValueError):
        limit = cores or 1  # no cgroup v2, or no limit: "max"
    return max(min(cores or 1, limit), 1)
