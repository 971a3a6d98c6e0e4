"""Packages of AOTInductor: what keeps one from being made. tests/examples/test_cpp.py runs one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from export import aoti
from export.checkpoints import Loaded
from export.errors import ExportError
from export.networks import find
from export.pipeline import Job, export

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return Job(find(str(ROOT / "tests/networks/tiny_classifier.py")), "random").load()


def test_the_missing_compiler_is_named_before_anything_is_exported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    job = Job(find(str(ROOT / "tests/networks/tiny_classifier.py")), "random")
    with pytest.raises(ExportError, match=r"no no-such-compiler: install it .*g\+\+"):
        export([job], tmp_path / "store", compiled=True)
    assert not (tmp_path / "store").exists()


def test_a_network_without_a_pt2(loaded: Loaded, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"has no tiny\.pt2 to compile"):
        aoti.build(loaded, tmp_path / "tiny.pt2")


def test_what_does_not_compile_leaves_the_package_that_was_there(
    loaded: Loaded, tmp_path: Path
) -> None:
    (tmp_path / "tiny.pt2").write_text("no program")
    (tmp_path / "tiny.aoti.pt2").write_text("earlier")
    with pytest.raises(ExportError, match=r"no tiny\.aoti\.pt2: it does not compile: .+") as raised:
        aoti.build(loaded, tmp_path / "tiny.pt2")
    assert "\n" not in str(raised.value)
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.pt2", "tiny.aoti.pt2"}


def test_what_fails_its_proof_is_not_kept(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tiny.pt2").touch()
    monkeypatch.setattr(aoti, "_run_compiler", lambda _, path: path.write_text("no package"))
    with pytest.raises(ExportError, match="it does not run in a fresh process"):
        aoti.build(loaded, tmp_path / "tiny.pt2")
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.pt2"}


def test_make_export_takes_aoti() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "export", "AOTI=1"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--aoti" in done.stdout
