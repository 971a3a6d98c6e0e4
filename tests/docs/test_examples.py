"""Runs the examples in the README and the docs as they are written."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.running import Running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / name).read_text()
    for name in (
        "README.md",
        "client/README.md",
        "docs/clients.md",
        "docs/torchscript.md",
        "docs/your-model.md",
    )
}


def examples(pattern: str) -> dict[str, str]:
    """The matches of ``pattern`` in the pages by test id, which names the page."""
    return {
        f"{name}-{i}": match
        for name, text in PAGES.items()
        for i, match in enumerate(re.findall(pattern, text, re.MULTILINE | re.DOTALL))
    }


# The server here has no embeddings: tests/serving/test_new_networks.py runs these lines.
CURL = examples(r"^curl (?![^\n]*_embed)[^\n]*$")
VISION = examples(r"^vision (?!embed)[^\n]*$")
PYTHON = examples(r"^```python\n(.*?)^```$")


@pytest.fixture
def folder(tmp_path: Path, model_store: Path, photographs: dict[str, Image.Image]) -> Path:
    """A reader's folder: photographs, a small picture, the model store."""
    photographs["chelsea"].save(tmp_path / "photo.jpg")
    photographs["chelsea"].resize((96, 64)).save(tmp_path / "small.png")
    (tmp_path / "photos").mkdir()
    photographs["coffee"].save(tmp_path / "photos" / "coffee.jpg")
    (tmp_path / "model_store").symlink_to(model_store)
    return tmp_path


def localized(text: str, server: Running, rest: str) -> str:
    """``text`` with the addresses of the test server; ``rest`` is that over REST."""
    text = text.replace("http://127.0.0.1:8080", rest)
    return text.replace("127.0.0.1:7070", server.config.grpc)


def test_there_are_examples() -> None:
    assert len(CURL) >= 9
    assert len(VISION) >= 6
    assert len(PYTHON) >= 6


@pytest.mark.parametrize("line", CURL.values(), ids=CURL)
def test_curl(server: Running, folder: Path, line: str) -> None:
    command = localized(line, server, server.config.inference)
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


@pytest.mark.parametrize("line", VISION.values(), ids=VISION)
def test_vision(server: Running, folder: Path, line: str) -> None:
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


@pytest.mark.parametrize("example", PYTHON.values(), ids=PYTHON)
def test_python(
    server: Running,
    folder: Path,
    example: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = folder / "example.py"
    script.write_text(localized(example, server, server.config.inference))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(script))
    assert capsys.readouterr().out.strip()


def test_every_make_target_in_the_docs_exists() -> None:
    text = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    named = {word for line in re.findall(r"`make ([a-z -]+)", text) for word in line.split()}
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert named <= set(re.findall(r"^  make ([a-z-]+)", shown.stdout, re.MULTILINE))
