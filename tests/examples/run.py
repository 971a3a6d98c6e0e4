"""How the examples are run as a reader runs them, and how their output is read."""

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


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Run a program to its end, whatever its exit status."""
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def difference(path: Path, expected: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The absolute difference of each sample of the picture in ``path``, in 8-bit levels."""
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        actual = np.asarray(picture, dtype=np.float32)
    assert actual.shape == expected.shape
    levels: npt.NDArray[np.float32] = np.abs(actual - expected)
    return levels


def ranking(stdout: str) -> Ranking:
    """The lines of both classify programs, ``1. 0.962933 golden retriever``."""
    labels = []
    for rank, line in enumerate(stdout.splitlines(), 1):
        match = re.fullmatch(r"(\d+)\. (\d\.\d{6}) (.+)", line)
        assert match, line
        assert int(match[1]) == rank
        labels.append((match[3], float(match[2])))
    return labels


def shell_blocks(section: str) -> list[str]:
    """The shell commands of one section of examples/README.md, block by block."""
    readme = (ROOT / "examples" / "README.md").read_text()
    text = re.split(r"^## ", readme.split(f"\n## {section}\n")[1], flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def checkout(folder: Path, example: str, store: Path, photo: Image.Image) -> Path:
    """``folder`` as a reader's checkout: one example, model store, .venv and a photograph."""
    shutil.copytree(
        ROOT / "examples" / example,
        folder / "examples" / example,
        ignore=shutil.ignore_patterns("build", "__pycache__", "node_modules"),
    )
    (folder / "model_store").symlink_to(store)
    (folder / ".venv").symlink_to(sys.prefix)
    photo.save(folder / "photo.jpg", quality=90)
    return folder
