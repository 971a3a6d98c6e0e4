"""What the examples of the TorchScript files are compared with, and how they are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.eager import Ranking

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300

Run = subprocess.CompletedProcess[str]


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
