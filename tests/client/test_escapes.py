"""Control characters in file names and server messages do not reach the terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.client.conftest import VISION
from tests.standin import LIMIT_S, Answering
from tools.terminal import in_terminal, plain
from vision_client import Model
from vision_client.show import printable

pytestmark = pytest.mark.slow

# Set the window's title, blink, blink with a C1 character, reverse the text, are not UTF-8.
NAMES = [
    "\x1b]0;title\x07.jpg",
    "\x1b[5m.jpg",
    "\x9b5m.jpg",
    "\u202egpj.exe.jpg",
    "two\nlines\tand\rmore.jpg",
    os.fsdecode(b"\x9b5m caf\xe9.jpg"),
    ":warning: [bold].jpg",
]
SHOWN = [
    r"\x1b]0;title\x07.jpg",
    r"\x1b[5m.jpg",
    r"\x9b5m.jpg",
    r"\u202egpj.exe.jpg",
    r"two\nlines\tand\rmore.jpg",
    r"\udc9b5m caf\udce9.jpg",
    ":warning: [bold].jpg",
]
LABEL = "\x1b[5m cat \u2028\u202e\x85 :dog:"
SHOWN_LABEL = r"\x1b[5m cat \u2028\u202e\x85 :dog:"
CAT = {"class_id": 1, "label": LABEL, "probability": 0.5}
CLASSIFIED = json.dumps({"predictions": [CAT]}).encode()
REFUSED = json.dumps({"code": 400, "type": "Bad\x1b[5m", "message": f"{LABEL}\r\n"}).encode()
COMMANDS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def check(shown: str) -> None:
    """``shown`` has no control sequences except those that Rich writes."""
    for command in COMMANDS.findall(shown):
        assert command != "\x1b[5m"
    rest = plain(shown).replace("\r\n", "\n").replace("\r", "")
    assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", rest) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(b"x")
    return folder


def environment(server: Answering) -> dict[str, str]:
    return {**os.environ, "VISION_SERVER": server.url}


def vision(*arguments: str | Path, server: Answering) -> tuple[int, str, str]:
    """In a pipe: exit status, standard output, standard error."""
    run = subprocess.run(
        [VISION, *map(str, arguments)], env=environment(server), capture_output=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip
    return run.returncode, os.fsdecode(run.stdout), os.fsdecode(run.stderr)


def test_names_and_labels_in_a_terminal(folder: Path) -> None:
    with Answering.started(body=CLASSIFIED) as server:
        status, shown = in_terminal([VISION, "classify", folder], environment(server))
    assert status == 0
    check(shown)
    for name in SHOWN:
        assert f"{folder}/{name}" in plain(shown)
    assert plain(shown).count(SHOWN_LABEL) == len(SHOWN)


def test_csv_in_a_terminal(folder: Path) -> None:
    with Answering.started(body=CLASSIFIED) as server:
        status, shown = in_terminal([VISION, "classify", folder, "--csv"], environment(server))
    assert status == 0
    check(shown)
    assert plain(shown).count(SHOWN_LABEL) == len(SHOWN)


def test_failures(folder: Path) -> None:
    """Also if standard error is not a terminal, because it is displayed later."""
    with Answering.started(400, body=REFUSED) as server:
        status, shown = in_terminal([VISION, "classify", folder], environment(server))
        piped_status, _, errors = vision("classify", folder, server=server)
    assert (status, piped_status) == (1, 1)
    for text in (shown, errors):
        check(text)
        for name in SHOWN:
            expected = rf"failed {folder}/{name}: 400 Bad\x1b[5m: {SHOWN_LABEL}\r\n"
            assert expected in plain(text)


def test_a_pipe_has_a_line_for_each(folder: Path) -> None:
    """Tab-separated names are escaped, so that they stay one field; JSON and CSV are exact."""
    with Answering.started(body=CLASSIFIED) as server:
        _, tabs, _ = vision("classify", folder, server=server)
        _, lines, _ = vision("classify", folder, "--json", server=server)
        _, rows, _ = vision("classify", folder, "--csv", server=server)
    check(tabs.replace("\t", " "))
    assert sorted(tabs.splitlines()) == sorted(
        f"{folder}/{name}\t1\t1\t{SHOWN_LABEL}\t0.5" for name in SHOWN
    )
    exact = {f"{folder}/{name}" for name in NAMES}
    assert {json.loads(line)["picture"] for line in lines.splitlines()} == exact
    assert {row["picture"] for row in csv.DictReader(io.StringIO(rows, newline=""))} == exact


def test_a_translation_in_a_terminal(folder: Path) -> None:
    png = b"\x89PNG and more"
    with Answering.started(body=png) as server:
        for name, escaped in [*zip(NAMES, SHOWN, strict=True)][::2]:
            arguments = [VISION, "translate", f"{folder}/{name}", "-o", f"{folder}/{name}s"]
            status, shown = in_terminal(arguments, environment(server))
            assert status == 0
            check(shown)
            assert f"{folder}/{escaped}s/{escaped.removesuffix('.jpg')}.png in" in plain(shown)


def test_status() -> None:
    with Answering.started(400, body=REFUSED) as server:
        server.models = None
        ended, text, _ = vision("status", server=server)
        server.models = (Model("a\x1b[5m", False, "classify", "b\x1b[5m", "c\x1b[5m"),)
        _, listed, _ = vision("status", server=server)
    assert ended == 1
    check(text)
    assert text.count(SHOWN_LABEL) == 1
    check(listed)
    for shown in (r"a\x1b[5m", r"weights b\x1b[5m", r"not ready: c\x1b[5m"):
        assert shown in listed


@pytest.mark.parametrize(
    "arguments",
    [
        ("classify", "--\x1b[5m"),
        ("classify", "x.jpg", "-o", "\x1b[5m\u202e\x85.txt"),
        ("translate", "a/\x1b[5m\u202e.jpg", "b/\x1b[5m\u202e.jpg", "-o", "translated"),
        ("--\x1b[5m\u202e",),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A shell's ``*`` may expand to options."""
    (tmp_path / "\x1b[5m\u202e\x85.txt").write_bytes(b"x")
    status, shown = in_terminal([VISION, *arguments], dict(os.environ), cwd=tmp_path)
    assert status == 2
    check(shown)


@pytest.mark.parametrize(
    "text", ["cat.jpg", "naïve café.jpg", "猫\u3000犬.jpg", "👩\u200d👧.jpg", "a\\b \u00a0c"]
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert printable(text) == text
