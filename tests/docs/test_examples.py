"""The examples in the README and the docs are run as they stand there."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / name).read_text()
    for name in ("README.md", "client/README.md", "docs/clients.md", "docs/your-model.md")
}


def found(pattern: str) -> list[Any]:
    """What ``pattern`` finds in the pages, each to be run, named by its page."""
    return [
        pytest.param(match, id=f"{name}-{i}")
        for name, text in PAGES.items()
        for i, match in enumerate(re.findall(pattern, text, re.MULTILINE | re.DOTALL))
    ]


CURL = found(r"^curl [^\n]*$")
VISION = found(r"^vision [^\n]*$")
PYTHON = found(r"^```python\n(.*?)^```$")


@pytest.fixture
def folder(tmp_path: Path, model_store: Path, photographs: dict[str, Image.Image]) -> Path:
    """A folder as the reader has it: photographs, a small one, the artefacts."""
    photographs["chelsea"].save(tmp_path / "photo.jpg")
    photographs["chelsea"].resize((96, 64)).save(tmp_path / "small.png")
    (tmp_path / "photos").mkdir()
    photographs["coffee"].save(tmp_path / "photos" / "coffee.jpg")
    (tmp_path / "model_store").symlink_to(model_store)
    return tmp_path


def here(text: str, server: Any) -> str:
    """``text`` with the addresses of the suite's server."""
    text = text.replace("http://127.0.0.1:8080", server.config.inference)
    return text.replace("127.0.0.1:7070", server.config.grpc)


def test_there_are_examples() -> None:
    assert len(CURL) >= 9
    assert len(VISION) >= 6
    assert len(PYTHON) >= 6


@pytest.mark.parametrize("line", CURL)
def test_curl(server: Any, folder: Path, line: str) -> None:
    command = here(line, server).replace("curl", "curl --silent --show-error --fail", 1)
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


@pytest.mark.parametrize("line", VISION)
def test_vision(server: Any, folder: Path, line: str) -> None:
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VISION_SERVER": server.config.inference,
    }
    run = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=env, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    output = re.search(r"(?:-o|>) (\S+)", line)
    if output:
        assert (folder / output[1]).exists()
    else:
        assert run.stdout


@pytest.mark.parametrize("example", PYTHON)
def test_python(
    server: Any,
    folder: Path,
    example: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = folder / "example.py"
    script.write_text(here(example, server))
    monkeypatch.chdir(folder)
    runpy.run_path(str(script))
    assert capsys.readouterr().out.strip()


def test_every_make_target_that_is_named_exists() -> None:
    text = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    named = {word for line in re.findall(r"`make ([a-z -]+)", text) for word in line.split()}
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert named <= set(re.findall(r"^  make ([a-z-]+)", shown.stdout, re.MULTILINE))


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
