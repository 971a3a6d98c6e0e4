"""The README's examples are run as they stand there."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CURL = re.findall(r"^curl .*$", README, re.MULTILINE)
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, model_store: Path, photographs: dict[str, Image.Image]) -> Path:
    """A folder as the reader has it: a photograph, a small one, the artefacts."""
    photographs["chelsea"].save(tmp_path / "photo.jpg")
    photographs["chelsea"].resize((96, 64)).save(tmp_path / "small.png")
    (tmp_path / "model_store").symlink_to(model_store)
    return tmp_path


def test_there_are_examples() -> None:
    assert len(CURL) >= 7
    assert len(PYTHON) == 2


@pytest.mark.parametrize("line", CURL)
def test_curl(server: Any, folder: Path, line: str) -> None:
    command = line.replace("http://127.0.0.1:8080", server.config.inference)
    command = command.replace("curl", "curl --silent --show-error --fail", 1)
    run = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    output = re.search(r"-o (\S+)", line)
    if output:
        with Image.open(folder / output[1]) as picture:
            assert picture.size[0] > picture.size[1]
    else:
        assert '"predictions"' in run.stdout


@pytest.mark.parametrize("index", range(len(PYTHON)))
def test_python(
    server: Any,
    folder: Path,
    index: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = folder / "example.py"
    script.write_text(PYTHON[index].replace("127.0.0.1:7070", server.config.grpc))
    monkeypatch.chdir(folder)
    runpy.run_path(str(script))
    assert re.search(r'"predictions"|untrained', capsys.readouterr().out)


def test_every_make_target_of_the_readme_exists() -> None:
    named = set(re.findall(r"`make ([a-z]+)`", README))
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert named <= set(re.findall(r"^  make (\w+)", shown.stdout, re.MULTILINE))


def test_install_says_which_python_it_needs() -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 10, 4, 'final', 0);"
        "runpy.run_path('install.py', run_name='__main__')"
    )
    command = ["python3", "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "Python 3.10.4" in run.stderr
    assert "3.11, 3.12 or 3.13 is needed" in run.stderr
