"""Pictures of ever new shapes do not make a worker grow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from export.artefact import append_model
from serving.plan import WORKER_DEFAULTS
from tests.conversion import converted

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TORCHSCRIPT = """
channels = 32
network = torch.nn.Conv2d(32, 32, 3).to(memory_format=torch.channels_last)
"""
OPENVINO = """
from pathlib import Path
from handlers.network import openvino
channels = 3
openvino._KERNELS = {kernels}
network = openvino._compiled(Path({path!r}), "float32")
"""
# Bytes per shape that a convolution over 800 new shapes adds, once 1200 have filled the caches.
GROWTH = """
import ctypes, psutil, torch
{network}
def resident():
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss
def grown(begin, end):
    before = resident()
    with torch.inference_mode():
        for i in range(begin, end):
            x = torch.rand(1, channels, 8 + i % 25, 8 + i // 25)
            network(x.contiguous(memory_format=torch.channels_last))
    return (resident() - before) / (end - begin)
grown(0, 1200)
print(grown(1200, 2000))
"""


def growth(network: str, **environment: str) -> float:
    run = subprocess.run(
        [sys.executable, "-c", GROWTH.format(network=network)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return float(run.stdout)


def test_caches_of_kernels_are_bounded() -> None:
    assert growth(TORCHSCRIPT, **WORKER_DEFAULTS) < 5_000
    unbounded = {**WORKER_DEFAULTS, "LRU_CACHE_CAPACITY": "100000"}
    assert growth(TORCHSCRIPT, **unbounded) > 15_000, "the test cannot detect growth"


def test_openvino_s_cache_of_kernels_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "convolution.pt"
    convolution = nn.Conv2d(3, 32, 3)
    torch.jit.trace(convolution, torch.zeros(1, 3, 8, 8)).save(path)
    append_model(path, "openvino", converted(convolution))
    bounded, unbounded = (
        growth(OPENVINO.format(kernels=kernels, path=str(path)), **WORKER_DEFAULTS)
        for kernels in (128, 100_000)
    )
    assert bounded < 5_000
    assert unbounded > 15_000, "the test cannot detect growth"
