"""Pictures of ever new shapes do not make a worker grow."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serving.plan import WORKER_DEFAULTS

pytestmark = pytest.mark.slow

# Bytes per shape that a convolution over 800 new shapes adds, once 1200 have filled the caches.
GROWTH = """
import ctypes, psutil, torch
convolution = torch.nn.Conv2d(32, 32, 3).to(memory_format=torch.channels_last)
def resident():
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss
def grown(begin, end):
    before = resident()
    with torch.inference_mode():
        for i in range(begin, end):
            x = torch.rand(1, 32, 8 + i % 25, 8 + i // 25)
            convolution(x.contiguous(memory_format=torch.channels_last))
    return (resident() - before) / (end - begin)
grown(0, 1200)
print(grown(1200, 2000))
"""


def growth(**environment: str) -> float:
    run = subprocess.run(
        [sys.executable, "-c", GROWTH],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return float(run.stdout)


def test_caches_of_kernels_are_bounded() -> None:
    assert growth(**WORKER_DEFAULTS) < 5_000
    unbounded = {**WORKER_DEFAULTS, "LRU_CACHE_CAPACITY": "100000"}
    assert growth(**unbounded) > 15_000, "the test cannot detect growth"
