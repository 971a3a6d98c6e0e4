"""examples/notebook.ipynb: run from its first cell to its last against the real server."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.examples.run import ROOT
from tests.routes import post
from tests.running import Running

pytestmark = pytest.mark.slow

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
CELL_TIMEOUT_S = 300
RUN_TIMEOUT_S = 600

Cell = dict[str, Any]


def cells(path: Path, kind: str) -> list[Cell]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.fixture(scope="module")
def executed(
    server: Running, model_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Cell]:
    """Its code cells as the README's command leaves them, without the user's own settings."""
    readme = (ROOT / "examples" / "README.md").read_text()
    section = readme.split("\n## Notebook\n")[1].split("\n## ")[0]
    (command,) = re.findall(r"^(\.venv/bin/jupyter execute .*)$", section, re.MULTILINE)
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/jupyter"
    assert arguments[-1] == "--output=../run/notebook"
    folder = tmp_path_factory.mktemp("executed")
    arguments[-1] = f"--output={folder / 'notebook'}"
    names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
    # A process of its own: Jupyter leaves sockets and event loops open, which would warn here.
    run = subprocess.run(
        [sys.executable, "-m", "jupyter", *arguments, f"--timeout={CELL_TIMEOUT_S}"],
        cwd=ROOT,
        env={
            **{
                name: value for name, value in os.environ.items() if not name.startswith("JUPYTER_")
            },
            **dict.fromkeys(names, str(folder)),
            "MODEL_STORE": str(model_store),
            "VISION_SERVER": server.config.inference,
            "VISION_GRPC": server.config.grpc,
        },
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return cells(folder / "notebook.ipynb", "code")


def outputs(executed: list[Cell], cell: str) -> list[dict[str, Any]]:
    (found,) = [found["outputs"] for found in executed if found["id"] == cell]
    return list(found)


def printed(executed: list[Cell], cell: str) -> str:
    """The text that the cell wrote to stdout or displayed."""
    texts = [
        o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs(executed, cell)
    ]
    return "".join("".join(text) for text in texts)


def sizes(executed: list[Cell], cell: str) -> list[tuple[int, int]]:
    """Those of the pictures that the cell displayed."""
    shown = [output["data"]["image/png"] for output in outputs(executed, cell) if "data" in output]
    return [Image.open(io.BytesIO(b64decode(png))).size for png in shown]


def test_it_is_committed_valid_and_without_results() -> None:
    check = (
        "import nbformat, sys; nbformat.validate(nbformat.read(sys.argv[1], nbformat.NO_CONVERT))"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", check, str(NOTEBOOK)], check=True)
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert all(cell["id"] for cell in notebook["cells"])
    for cell in cells(NOTEBOOK, "code"):
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})


def test_its_links_lead_somewhere() -> None:
    text = "".join("".join(cell["source"]) for cell in cells(NOTEBOOK, "markdown"))
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 3
    assert [link for link in links if not (NOTEBOOK.parent / link).exists()] == []


def test_every_cell_ran_in_this_python_without_complaints(executed: list[Cell]) -> None:
    assert len(executed) == len(cells(NOTEBOOK, "code"))
    assert [cell["execution_count"] for cell in executed] == list(range(1, len(executed) + 1))
    outputs = [output for cell in executed for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    assert sys.executable in printed(executed, "setup")
    assert "resnet101 is UNTRAINED" in printed(executed, "resnet")
    assert "cyclegan is UNTRAINED" in printed(executed, "generator")


def test_it_compares_notebook_rest_and_grpc(executed: list[Cell], server: Running) -> None:
    photo = (ROOT / "tools" / "sample.jpg").read_bytes()
    predictions = post(server, "resnet101", data=photo).json()["predictions"]
    expected = [(p["label"], p["probability"]) for p in predictions]
    assert all(f"('{label}', " in printed(executed, "classify") for label, _ in expected)
    heading, *rows, last = printed(executed, "table").splitlines()
    # In float32 the tolerance of tests/serving/test_parity.py; otherwise the notebook's own.
    exact = server.management.describe("resnet101")["precision"] == "float32"
    allowed = 0.002 if exact else float(last.split()[-1])
    assert heading.split() == ["notebook", "REST", "gRPC"]
    assert [re.split(r"  +", row)[0] for row in rows] == [label for label, _ in expected]
    for row, (_, probability) in zip(rows, expected, strict=True):
        percentages = [float(number) for number in re.findall(r"([\d.]+)%", row)]
        assert percentages == pytest.approx([100 * probability] * 3, abs=100 * allowed)
    assert float(last.split()[2].rstrip(";")) <= allowed


def test_it_shows_photograph_and_paintings(executed: list[Cell]) -> None:
    assert sizes(executed, "preprocess") == [(451, 300)]
    assert sizes(executed, "generator") == [(451, 300), (384, 256)]
    assert sizes(executed, "picture") == [(384, 256)]
    assert len(re.findall(r"384x256, differs by 0\.\d\d levels", printed(executed, "picture"))) == 2


def test_a_broken_upload_is_answered_alone(executed: list[Cell]) -> None:
    assert re.match(r"code +400\ntype +BadImage\nmessage +\w", printed(executed, "errors"))
    answers = printed(executed, "many").splitlines()
    good = [re.match(r"\d +[\d.]+%  \w", answer) is not None for answer in answers]
    assert good == [True] * 3 + [False] + [True] * 4
    assert answers[3].startswith("4 400 BadImage: ")
