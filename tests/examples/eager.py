"""What the examples of the TorchScript files are compared with, and how they are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from torchvision.models import ResNet101_Weights
from torchvision.transforms import v2

from export.checkpoints import untrained
from export.networks import registered

ROOT = Path(__file__).parents[2]
LABELS: list[str] = ResNet101_Weights.IMAGENET1K_V1.meta["categories"]
TIMEOUT_S = 300

Ranking = list[tuple[str, float]]
Run = subprocess.CompletedProcess[str]


@cache
def _network(name: str) -> nn.Module:
    return untrained(registered()[name])


def classified(picture: Image.Image, top_k: int) -> Ranking:
    """Eager PyTorch's ranking of an RGB picture, by torchvision's transforms."""
    preprocess = ResNet101_Weights.IMAGENET1K_V1.transforms()
    with torch.inference_mode():
        best = _network("resnet101")(preprocess(picture)[None])[0].softmax(0).topk(top_k)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(LABELS[index], probability) for index, probability in pairs]


def translated(picture: Image.Image, size: int = 256) -> npt.NDArray[np.float32]:
    """Eager PyTorch's picture, ``(H, W, 3)`` in levels from 0 to 255, not rounded.

    ``size`` is the shorter side; the longer one must come out as a multiple of 4 by itself.
    """
    preprocess = v2.Compose(
        [v2.Resize(size), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    with torch.inference_mode():
        output = _network("cyclegan")(preprocess(picture)[None])[0]
    levels: npt.NDArray[np.float32] = ((output + 1) / 2 * 255).permute(1, 2, 0).numpy()
    return levels


def off(path: Path, expected: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far each sample of the picture in ``path`` is from ``expected``, in levels."""
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        found = np.asarray(picture, dtype=np.float32)
    assert found.shape == expected.shape
    difference: npt.NDArray[np.float32] = np.abs(found - expected)
    return difference


def ranking(stdout: str) -> Ranking:
    """What both classify programs print, ``1. 0.962933 golden retriever``."""
    found = []
    for rank, line in enumerate(stdout.splitlines(), 1):
        match = re.fullmatch(r"(\d+)\. (\d\.\d{6}) (.+)", line)
        assert match, line
        assert int(match[1]) == rank
        found.append((match[3], float(match[2])))
    return found


def run(*words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    """A program to its end, whatever its status."""
    return subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def shell_blocks(section: str) -> list[str]:
    """The commands of one section of examples/README.md, block by block."""
    readme = (ROOT / "examples" / "README.md").read_text()
    text = re.split(r"^## ", readme.split(f"\n## {section}\n")[1], flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def checkout(folder: Path, example: str, store: Path, photo: Image.Image) -> Path:
    """``folder`` as a reader's checkout: one example, model store, .venv and a photograph."""
    shutil.copytree(
        ROOT / "examples" / example,
        folder / "examples" / example,
        ignore=shutil.ignore_patterns("build", "__pycache__"),
    )
    (folder / "model_store").symlink_to(store)
    (folder / ".venv").symlink_to(sys.prefix)
    photo.save(folder / "photo.jpg", quality=90)
    return folder
