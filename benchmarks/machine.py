"""The facts without which a figure means nothing."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import psutil
import torch
import torchvision

from benchmarks.errors import BenchError

# Variables by which PyTorch and oneDNN leave instructions unused that the CPU has.
HIDING = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


def torch_device(device: str) -> str:
    """auto, gpu or cpu -> PyTorch's word; BenchError where there is no GPU and one is asked for."""
    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if device == "gpu":
        raise BenchError("--device gpu, but PyTorch finds no GPU that it can use")
    return "cpu"


def facts(device: str) -> dict[str, str | int | float]:
    """What the figures depend on, for ``device`` cpu or cuda."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "none used",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "system": platform.platform(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def summary(machine: dict[str, str | int | float]) -> str:
    """The facts in a line, for a person."""
    line = "{cpu}, {cores} cores, {memory_gib} GiB, GPU: {gpu}, PyTorch {torch}, {date}"
    return line.format(**machine)


def _cpu() -> str:
    """The CPU's name, its instructions that matter for networks, and variables that hide some."""
    text = Path("/proc/cpuinfo").read_text()
    lines = dict(line.split("\t: ", 1) for line in text.splitlines() if "\t: " in line)
    names = {name.strip(): value for name, value in lines.items()}
    flags = names.get("flags", "").split()
    known = ("avx2", "avx512f", "avx512_bf16", "amx_tile")
    notes = [flag for flag in known if flag in flags]
    hidden = [f"{name}={os.environ[name]}" for name in HIDING if name in os.environ]
    if hidden:
        notes.append(f"newer instructions hidden by {' '.join(hidden)}")
    return f"{names.get('model name', platform.machine())} ({', '.join(notes)})"
