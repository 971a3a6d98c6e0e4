"""The GPUs that TorchServe will see, which is what nvidia-smi lists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serving.errors import ServingError

DEVICES = ("auto", "gpu", "cpu")

_PYTORCH_CHECK = "import sys, torch; sys.exit(not torch.cuda.is_available())"


def count(device: str) -> int:
    """How many GPUs to serve on when ``device`` is auto, gpu or cpu.

    Raises ServingError where a GPU is asked for and there is none that PyTorch can use, or where
    one is there that TorchServe would silently pass over.
    """
    if device == "cpu":
        return 0
    listed = _listed()
    if listed == 0:
        if device == "gpu":
            raise ServingError(
                "DEVICE=gpu, but nvidia-smi lists no GPU: TorchServe would serve on the CPU "
                "without a word; install the NVIDIA driver and nvidia-smi, or take DEVICE=cpu"
            )
        if Path("/dev/nvidia0").exists():
            raise ServingError(
                "there is an NVIDIA GPU, but no working nvidia-smi, by which TorchServe finds it: "
                "install nvidia-smi, or take DEVICE=cpu"
            )
        return 0
    if subprocess.run([sys.executable, "-c", _PYTORCH_CHECK], check=False).returncode:
        raise ServingError(
            f"nvidia-smi lists {listed} GPU(s), but PyTorch cannot use them: the driver may be too "
            "old for this PyTorch's CUDA; update it, or take DEVICE=cpu"
        )
    return listed


def _listed() -> int:
    try:
        run = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],  # noqa: S607
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(run.stdout.split())
