"""The example programs in both languages, and files that they must refuse."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from tests.debian import require
from tests.examples.run import ROOT, Run, checkout, run, shell_blocks

BUILD_TIMEOUT_S = 600
# As Ubuntu's linker does by default; and our own code compiles without a warning.
FLAGS = {"LDFLAGS": "-Wl,--as-needed", "CXXFLAGS": "-O2 -Wall -Wextra -Wpedantic -Werror"}

# By file: a part of the message. All but the last are of cyclegan, the smaller network.
REFUSED_MODELS = {
    "missing.pt": "no such file",
    "truncated.pt": "is not a TorchScript file, or is damaged",
    "text.pt": "is not a TorchScript file, or is damaged",
    "foreign.pt": "cannot be checked",
    "half.pt": "cannot be checked",
    "flipped.pt": "misses its golden example on cpu",
    "other.pt": "misses its golden example on cpu",
    "nan.pt": "misses its golden example on cpu",
    "resnet101.pt": "gives classes, this program needs picture",
}
REFUSED_PICTURES = ("missing.png", "text.png", "truncated.png", "folder")


@dataclass(frozen=True)
class Programs:
    """``classify`` and ``translate`` in one language, and how close they come to eager PyTorch.

    ``probability`` is the tolerance for a PNG, ``jpeg`` that for a JPEG; ``step`` is the largest
    difference of a sample of a picture.
    """

    folder: Path
    command: tuple[str, ...]  # goes before a program's path
    suffix: str
    options: Mapping[str, tuple[str, ...]]  # goes before top-k and size
    absent: Mapping[str, str]  # an environment without other packages
    probability: float
    jpeg: float
    step: float

    def run(
        self, program: str, *arguments: str | Path, number: int | None = None, alone: bool = False
    ) -> Run:
        """``number`` is the optional top-k or size; ``alone`` hides what it must not import."""
        optional = () if number is None else (*self.options[program], str(number))
        path = self.folder / (program + self.suffix)
        return run(*self.command, path, *arguments, *optional, env=self.absent if alone else {})

    def call(self, program: str, *arguments: str | Path, number: int | None = None) -> Run:
        """The same, but Python in this process, because its start takes seconds."""
        if not self.command:
            return self.run(program, *arguments, number=number)
        optional = () if number is None else (*self.options[program], str(number))
        argv = [program + self.suffix, *map(str, arguments), *optional]
        out, err = StringIO(), StringIO()
        code: object = 0
        with (
            mock.patch("sys.argv", argv),
            mock.patch("sys.path", [str(self.folder), *sys.path]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                runpy.run_path(str(self.folder / argv[0]), run_name="__main__")
            except SystemExit as ended:
                code = ended.code  # a text is printed, and the status is 1
        said = "" if isinstance(code, int) else f"{code}\n"
        return Run(
            argv, code if isinstance(code, int) else 1, out.getvalue(), err.getvalue() + said
        )


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """``alone`` they can import nothing but PyTorch and Pillow."""
    absent = tmp_path_factory.mktemp("absent")
    for name in ("export", "handlers", "numpy", "torchvision", "vision_client"):
        raises = f"raise ModuleNotFoundError('not here', name={name!r})\n"
        (absent / f"{name}.py").write_text(raises)
    options = {"classify": ("--top-k",), "translate": ("--size",)}
    env, folder = {"PYTHONPATH": str(absent)}, ROOT / "examples" / "python"
    return Programs(folder, (sys.executable,), ".py", options, env, 1e-4, 1e-4, 1)


@pytest.fixture(scope="session")
def built(
    model_store: Path,
    photographs: dict[str, Image.Image],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """By build tool: a checkout in which the README's commands have built the C++ programs."""
    require("cmake", "g++", "make", "libstb-dev", "nlohmann-json3-dev")
    folders, builds = {}, {}
    for tool, block in zip(("cmake", "make"), shell_blocks("C++"), strict=False):
        folder = tmp_path_factory.mktemp(tool)
        folders[tool] = checkout(folder, "cpp", model_store, photographs["chelsea"])
        with (folder / "log").open("w") as log:  # both at once: a minute less on two cores
            builds[tool] = subprocess.Popen(
                ["bash", "-euxc", block],
                cwd=folder,
                env={**os.environ, **FLAGS},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    for tool, build in builds.items():
        assert build.wait(BUILD_TIMEOUT_S) == 0, (folders[tool] / "log").read_text()
    return folders


@pytest.fixture(scope="session")
def cpp(built: dict[str, Path]) -> Programs:
    """As CMake built them.

    PyTorch's resize of 8-bit pixels has weights of 16 bits and Pillow's of 22, so a few samples in
    a thousand are one step off: 1.2e-3 was seen. stb decodes JPEG with other rounding and
    interpolation than libjpeg: 8e-4 was seen with this photograph, 5.1e-3 with another.
    """
    folder = built["cmake"] / "examples" / "cpp" / "build"
    return Programs(folder, (), "", {"classify": (), "translate": ()}, {}, 2e-3, 5e-3, 2)


@pytest.fixture(scope="session", params=["python", "cpp"])
def programs(request: pytest.FixtureRequest) -> Programs:
    language: Programs = request.getfixturevalue(request.param)
    return language


@pytest.fixture(scope="session")
def refused(
    model_store: Path,
    photographs: dict[str, Image.Image],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with REFUSED_MODELS and REFUSED_PICTURES. Read it only."""
    folder = tmp_path_factory.mktemp("refused")
    whole = (model_store / "cyclegan.pt").read_bytes()
    (folder / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "text.pt").write_text("no network\n")
    # In the middle of the weights, where PyTorch's reader does not notice.
    middle, flips = len(whole) // 2, 400
    flipped = bytes(byte ^ 0xFF for byte in whole[middle : middle + flips])
    (folder / "flipped.pt").write_bytes(whole[:middle] + flipped + whole[middle + flips :])
    _save_others(model_store / "cyclegan.pt", folder)
    (folder / "resnet101.pt").symlink_to(model_store / "resnet101.pt")
    (folder / "text.png").write_text("no picture\n")
    buffer = BytesIO()
    photographs["chelsea"].save(buffer, "PNG")
    (folder / "truncated.png").write_bytes(buffer.getvalue()[:50_000])
    (folder / "folder").mkdir()
    return folder


def _save_others(pt: Path, folder: Path) -> None:
    """Save the network of ``pt`` with other extra files."""
    extra: dict[str, Any] = {"model.json": b"", "golden_input.f32": b"", "golden_output.f32": b""}
    network = torch.jit.load(pt, _extra_files=extra)
    golden = np.frombuffer(extra["golden_output.f32"], "<f4").copy()
    one_off, one_nan = golden.copy(), golden.copy()
    one_off[-1] += 0.01 * np.abs(golden).max()
    one_nan[-1] = np.nan
    torch.jit.save(network, folder / "foreign.pt")
    for name, output in (("half", golden[::2]), ("other", one_off), ("nan", one_nan)):
        extra["golden_output.f32"] = output.tobytes()
        torch.jit.save(network, folder / f"{name}.pt", _extra_files=extra)
