"""The two untrained networks in memory, checkpoints of them, and the real commands."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from export.checkpoints import untrained
from export.networks import registered

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def resnet101() -> nn.Module:
    """What ``--weights random`` builds for resnet101. Read it only."""
    return untrained(registered()["resnet101"])


@pytest.fixture(scope="session")
def cyclegan() -> nn.Module:
    """What ``--weights random`` builds for cyclegan. Read it only."""
    return untrained(registered()["cyclegan"])


@pytest.fixture(scope="session")
def fine_tuned(resnet101: nn.Module) -> nn.Module:
    """A ResNet-101 of 7 classes, as a user's own training would save it. Read it only."""
    network = copy.deepcopy(resnet101)
    head = network.get_submodule("fc")
    assert isinstance(head, nn.Linear)
    head.weight, head.bias = nn.Parameter(head.weight[:7]), nn.Parameter(head.bias[:7])
    head.out_features = 7
    return network.requires_grad_(False)


@pytest.fixture
def save(tmp_path: Path) -> Iterator[Callable[[object], Path]]:
    """``torch.save`` to a file that is removed after the test: some have 180 MB."""
    files: list[Path] = []

    def to_file(checkpoint: object) -> Path:
        files.append(tmp_path / f"mine{len(files)}.pth")
        torch.save(checkpoint, files[-1])
        return files[-1]

    yield to_file
    for file in files:
        file.unlink()


@pytest.fixture
def store(model_store: Path, tmp_path: Path) -> Path:
    """A model store with hard links to both exports. Replace its files, never edit them."""
    copied = tmp_path / "model_store"
    copied.mkdir()
    for file in model_store.glob("*.*"):
        if not file.name.startswith("."):
            (copied / file.name).hardlink_to(file)
    return copied


@pytest.fixture(scope="session")
def command() -> Callable[..., list[str]]:
    """``command("export", "resnet101")``: the arguments of ``python -m export resnet101``."""

    def command_line(module: str, *arguments: object) -> list[str]:
        return [sys.executable, "-m", module, *map(str, arguments)]

    return command_line


@pytest.fixture
def run(command: Callable[..., list[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run("export", "resnet101", HOME="/elsewhere")`` runs a command and keeps its output."""

    def run_command(module: str, *arguments: object, **variables: object) -> Any:
        environment = os.environ | {name: str(value) for name, value in variables.items()}
        return subprocess.run(
            command(module, *arguments),
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run_command


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``call(main, "a")``: a command in this process, because a new one imports for seconds."""

    def call_main(main: Callable[[], int], *arguments: object) -> Any:
        words = list(map(str, arguments))
        monkeypatch.setattr("sys.argv", ["command", *words])
        try:
            status: object = main()
        except SystemExit as ended:  # of argparse
            status = ended.code
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(words, status, out, err)  # type: ignore[arg-type]

    return call_main
