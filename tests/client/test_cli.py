"""The command ``vision`` in a terminal and in a pipe, with the real server."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.client.conftest import PREDICTIONS, VISION, invoke
from tests.running import Running, free_port
from tests.standin import CLASSIFIER, TRANSLATOR, Answering
from tools import terminal
from tools.terminal import plain
from vision_client import show
from vision_client.tasks.classify import Prediction

TIMEOUT_S = 120
QUIET = {name: value for name, value in os.environ.items() if not name.startswith("VISION_")}


@pytest.fixture
def folder(tmp_path: Path, photographs: dict[str, Image.Image]) -> Path:
    """Two photographs, one of them in a subfolder, a text file, and one named as a photograph."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    photographs["chelsea"].save(folder / "cat.jpg")
    photographs["coffee"].save(folder / "below" / "coffee.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


@pytest.fixture
def at(server: Running) -> dict[str, str]:
    """The environment for commands that use the suite's server."""
    return {**QUIET, "VISION_SERVER": server.config.inference}


def vision(
    *arguments: str | Path, env: dict[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run it in a pipe."""
    return subprocess.run(
        [VISION, *map(str, arguments)], env=env, input=stdin, capture_output=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


def in_terminal(*arguments: str | Path, env: dict[str, str]) -> tuple[int, str]:
    return terminal.in_terminal([VISION, *arguments], env)


def unframed(run: subprocess.CompletedProcess[bytes]) -> str:
    """Standard error without Typer's frame, which breaks lines."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", "", run.stderr.decode()).split())


def predictions(server: Running, path: Path, top_k: int = 5) -> list[dict[str, Any]]:
    """The server's answer without the client."""
    response = requests.post(
        server.url(CLASSIFIER),
        data=path.read_bytes(),
        headers={"x-top-k": str(top_k)},
        timeout=TIMEOUT_S,
    )
    answer: list[dict[str, Any]] = response.json()["predictions"]
    return answer


def test_a_pipe_gets_plain_data(server: Running, at: dict[str, str], folder: Path) -> None:
    run = vision("classify", folder / "cat.jpg", "-k", "3", env=at)
    assert run.returncode == 0
    rows = [line.split("\t") for line in run.stdout.decode().splitlines()]
    expected = predictions(server, folder / "cat.jpg", 3)
    assert rows == [
        [str(folder / "cat.jpg"), str(rank), str(p["class_id"]), p["label"], str(p["probability"])]
        for rank, p in enumerate(expected, 1)
    ]
    assert run.stderr.decode() == "untrained networks: everything works, the answers mean nothing\n"


def test_json_and_csv(server: Running, at: dict[str, str], folder: Path) -> None:
    cat = folder / "cat.jpg"
    line = json.loads(vision("classify", cat, "--json", env=at).stdout)
    assert line == {
        "picture": str(cat),
        "model": CLASSIFIER,
        "weights": "untrained",
        "top_k": 5,
        "predictions": predictions(server, cat),
    }
    text = vision("classify", cat, "--csv", "-k", "2", env=at).stdout.decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["label"] for row in rows] == [p["label"] for p in predictions(server, cat, 2)]
    assert {row["weights"] for row in rows} == {"untrained"}


def test_a_label_stands_beside_its_bar() -> None:
    shown = show.bars([Prediction(0, "cat", 0.5), Prediction(1, "dog", 0.001)]).plain
    assert shown.splitlines() == [f"   50.00 % {'█' * 15} cat", "    0.10 % ▏ dog"]


@pytest.mark.slow
def test_a_terminal_gets_ranked_bars(server: Running, at: dict[str, str], folder: Path) -> None:
    status, shown = in_terminal("classify", folder / "below", env=at)
    assert status == 0
    lines = [line for line in plain(shown).splitlines() if " % " in line]
    for line, expected in zip(
        lines, predictions(server, folder / "below" / "coffee.png"), strict=True
    ):
        bar = "█" * round(30 * expected["probability"]) or "▏"
        assert line.strip() == f"{100 * expected['probability']:.2f} % {bar} {expected['label']}"


@pytest.mark.slow
def test_grpc_says_the_same(server: Running, at: dict[str, str], folder: Path) -> None:
    over_rest = vision("classify", folder / "cat.jpg", env=at).stdout
    options = ("--server", f"grpc://{server.config.grpc}", "--model", CLASSIFIER)
    rows = vision("classify", folder / "cat.jpg", *options, env=at).stdout
    assert [r.split(b"\t")[:4] for r in rows.splitlines()] == [
        r.split(b"\t")[:4] for r in over_rest.splitlines()
    ]


@pytest.mark.slow
def test_standard_input_and_output(at: dict[str, str], folder: Path) -> None:
    cat = (folder / "cat.jpg").read_bytes()
    assert vision("classify", "-", env=at, stdin=cat).stdout.startswith(b"-\t1\t")
    for output in ((), ("-o", "-")):
        run = vision("translate", "-", "--format", "webp", *output, env=at, stdin=cat)
        with Image.open(io.BytesIO(run.stdout)) as picture:
            assert (picture.format, picture.size) == ("WEBP", (384, 256))


def test_a_folder(at: dict[str, str], folder: Path) -> None:
    """Pictures are answered, a broken one is reported, files with other suffixes are not sent."""
    run = vision("classify", folder, env=at)
    assert run.returncode == 1
    names = {line.split(b"\t")[0].decode() for line in run.stdout.splitlines()}
    assert names == {str(folder / "cat.jpg"), str(folder / "below" / "coffee.png")}
    errors = run.stderr.decode()
    assert f"failed {folder}/broken.jpg: 400 BadImage: the bytes are not a picture" in errors
    assert re.search(r"^classified 2 in \d+\.\d s, 1 failed$", errors, re.MULTILINE)


@pytest.mark.slow
def test_a_folder_in_a_terminal_shows_progress(at: dict[str, str], folder: Path) -> None:
    status, shown = in_terminal("classify", folder, env=at)
    assert status == 1
    assert re.search(r"classified .*\d/3", plain(shown))
    assert plain(shown).rstrip().endswith("1 failed")


def test_missing_files_are_failures_and_the_rest_goes_on(at: dict[str, str], folder: Path) -> None:
    run = vision("classify", folder / "gone.jpg", folder / "cat.jpg", env=at)
    assert run.returncode == 1
    assert b"gone.jpg: No such file or directory" in run.stderr
    assert run.stdout.count(b"cat.jpg") == 5


@pytest.mark.parametrize("by_name", [False, True])
def test_special_files_fail_and_the_rest_goes_on(tmp_path: Path, by_name: bool) -> None:
    """Reading a FIFO or a socket might never end."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"x")
    os.mkfifo(folder / "fifo.jpg")
    (folder / "link.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening, Answering.started(body=PREDICTIONS) as server:
        listening.bind(str(folder / "socket.jpg"))
        names = sorted(path for path in folder.iterdir() if path.name != "folder.jpg")
        run = vision("classify", *(names if by_name else [folder]), "-s", server.url, env=QUIET)
    assert run.returncode == 1
    assert run.stdout.decode().startswith(f"{folder}/cat.jpg\t1\t1\tcat\t")
    errors = run.stderr.decode()
    for name in ("fifo.jpg", "link.jpg", "socket.jpg"):
        assert f"failed {folder}/{name}: not a regular file but a FIFO, socket or device" in errors
    assert "classified 1 in" in errors


@pytest.mark.parametrize("name", ["results.csv", "results.jsonl"])
def test_classify_resumes(at: dict[str, str], folder: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    first = vision("classify", folder / "cat.jpg", "-o", output, env=at)
    assert (first.returncode, first.stdout) == (0, b"")
    output.write_bytes(output.read_bytes() + b'{"picture": "half')
    second = vision("classify", folder, "-o", output, env=at)
    assert second.returncode == 1
    assert re.search(rb"classified 1 in .*, 1 were there already, 1 failed", second.stderr)
    text = output.read_text()
    assert text.count("cat.jpg") == text.count("coffee.png") == (5 if name == "results.csv" else 1)


def test_translate_mirrors_the_folder_and_resumes(at: dict[str, str], folder: Path) -> None:
    output = folder / "translated"
    arguments = ("translate", folder, "-o", output, "--format", "jpeg", "--size", "64")
    assert vision(*arguments, env=at).returncode == 1
    names = sorted(str(p.relative_to(output)) for p in output.rglob("*.*g"))
    assert names == ["below/coffee.jpg", "cat.jpg"]
    with Image.open(output / "cat.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (96, 64))
    (output / "cat.jpg").unlink()
    before = (output / "below" / "coffee.jpg").stat().st_mtime_ns
    second = vision(*arguments, env=at)
    assert re.search(rb"translated 1 in .*, 1 were there already, 1 failed", second.stderr)
    assert (output / "cat.jpg").exists()
    assert (output / "below" / "coffee.jpg").stat().st_mtime_ns == before
    third = vision(*arguments, "--force", env=at)
    assert re.search(rb"translated 2 in .*, 1 failed", third.stderr)
    assert (output / "below" / "coffee.jpg").stat().st_mtime_ns > before


@pytest.mark.slow
def test_a_picture_is_the_servers(server: Running, at: dict[str, str], folder: Path) -> None:
    vision("translate", folder / "cat.jpg", "-o", folder / "out", env=at)
    cat = (folder / "cat.jpg").read_bytes()
    expected = requests.post(server.url(TRANSLATOR), data=cat, timeout=TIMEOUT_S).content
    assert (folder / "out" / "cat.png").read_bytes() == expected


@pytest.mark.slow
def test_a_terminal_shows_before_and_after(at: dict[str, str], folder: Path) -> None:
    arguments = ("translate", folder / "cat.jpg", "-o", folder / "out", "--size", "64")
    status, shown = in_terminal(*arguments, env=at)
    assert status == 0
    assert shown.count("▀") + shown.count("▄") > 76 * 8
    assert re.search(r"out/cat\.png in \d", plain(shown))


@pytest.mark.slow
def test_kitty_and_iterm_get_the_pixels(at: dict[str, str], folder: Path) -> None:
    arguments = ("translate", folder / "cat.jpg", "-o", folder / "out", "--size", "64", "--force")
    _, shown = in_terminal(*arguments, env={**at, "KITTY_WINDOW_ID": "1"})
    chunks = re.findall(r"\x1b_G(?:a=T,f=100,)?m=([01]);([^\x1b]*)\x1b\\", shown)
    assert [more for more, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    assert all(len(chunk) <= 4096 for _, chunk in chunks)
    kitty = base64.b64decode("".join(chunk for _, chunk in chunks))
    _, shown = in_terminal(*arguments, env={**at, "TERM_PROGRAM": "iTerm.app"})
    sent = re.search(r"\x1b\]1337;File=inline=1;size=(\d+):([^\x07]*)\x07", shown)
    assert sent is not None
    iterm = base64.b64decode(sent[2])
    assert len(iterm) == int(sent[1])
    for png in (kitty, iterm):
        with Image.open(io.BytesIO(png)) as both:
            assert both.size == (2 * 96 + 8, 64)


@pytest.mark.slow
def test_a_terminal_without_colours_gets_no_picture(at: dict[str, str], folder: Path) -> None:
    arguments = ("translate", folder / "cat.jpg", "-o", folder / "out", "--size", "64")
    status, shown = in_terminal(*arguments, env={**at, "NO_COLOR": "1"})
    assert status == 0
    assert "▀" not in shown
    assert "▄" not in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("classify",), "Missing argument"),
        (("classify", "x", "--json", "--csv"), "one of --json and --csv"),
        (("classify", "x", "--server", "nowhere"), "'nowhere' names no server"),
        (("translate", "", "-o", "y"), "'' names no file"),
        (("classify", ""), "'' names no file"),
        (("translate", "x", "y"), "standard output holds one picture"),
        (("translate", "x", "-o", "y", "--format", "gif"), "'gif' is not one of"),
        (("paint", "x"), "No such command"),
    ],
)
def test_wrong_usage(arguments: Sequence[str], message: str) -> None:
    run = vision(*arguments, env=QUIET)
    assert run.returncode == 2
    assert message in unframed(run)


@pytest.mark.slow
def test_a_terminal_is_not_filled_with_a_picture(folder: Path) -> None:
    status, shown = in_terminal("translate", folder / "cat.jpg", env=QUIET)
    assert status == 2
    assert "say where the pictures go: -o DIR" in plain(shown)


@pytest.mark.slow
def test_a_server_that_is_down_ends_it_at_once(folder: Path) -> None:
    env = {**QUIET, "VISION_SERVER": f"http://127.0.0.1:{free_port()}"}
    run = vision("classify", folder, env=env)
    assert run.returncode == 1
    assert b"Connection refused; is it up (`make start`)?" in run.stderr
    assert run.stderr.count(b"\n") == 1


def test_an_invalid_output_is_reported_before_anything_is_sent(
    at: dict[str, str], folder: Path
) -> None:
    (folder / "file").touch()
    run = vision("translate", folder / "cat.jpg", "-o", folder / "file", env=at)
    assert run.returncode == 2
    assert "File exists" in unframed(run)
    assert "untrained" not in unframed(run)


@pytest.mark.parametrize("options", [("--json",), ("--csv",)])
def test_a_file_with_other_content_is_not_changed(folder: Path, options: Sequence[str]) -> None:
    notes = folder / "notes.txt"
    run = vision("classify", folder / "cat.jpg", "-o", notes, *options, env=QUIET)
    assert run.returncode == 2
    assert "was not changed; choose another file" in unframed(run)
    assert notes.read_text() == "no picture either"


@pytest.mark.slow
def test_a_full_disk_ends_it(at: dict[str, str], folder: Path, tmp_path: Path) -> None:
    """A limit of 10 kB per file gives an error much like that of a full disk."""
    output = tmp_path / "translated"
    limited = f"ulimit -f 10; trap '' XFSZ; exec {VISION} translate {folder} -o {output}"
    run = subprocess.run(
        ["bash", "-c", limited], env=at, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert run.returncode == 1
    assert b"cat.jpg: File too large" in run.stderr
    assert [path.name for path in output.rglob("*") if path.is_file()] == [".vision.jsonl"]


@pytest.mark.slow
def test_a_closed_pipe_ends_it_quietly(at: dict[str, str], folder: Path) -> None:
    line = f"set -o pipefail; {VISION} classify {folder} -j 1 | head -n 1"
    run = subprocess.run(
        ["bash", "-c", line], env=at, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert run.stdout.count(b"\n") == 1
    assert b"Traceback" not in run.stderr
    assert b"roken pipe" not in run.stderr


def test_status(at: dict[str, str]) -> None:
    run = vision("status", env=at)
    assert run.returncode == 0
    *models, _ = run.stdout.decode().splitlines()
    said = "ready, weights untrained: the answers mean nothing"
    assert sorted(models) == [f"{name:<10} {said}" for name in (TRANSLATOR, CLASSIFIER)]


@pytest.mark.slow
def test_status_without_a_server() -> None:
    down = vision("status", env={**QUIET, "VISION_SERVER": f"http://127.0.0.1:{free_port()}"})
    assert down.returncode == 1
    assert down.stdout.count(b"Connection refused") == 1


@pytest.mark.slow
def test_ctrl_c_keeps_the_results(at: dict[str, str], folder: Path, heavy: bytes) -> None:
    """It does not wait for the last photographs, which take seconds."""
    for i in range(8):
        (folder / f"z{i}.png").write_bytes(heavy)
    output = folder / "results.jsonl"
    arguments = [VISION, "classify", str(folder), "-o", str(output), "-j", "8"]
    process = subprocess.Popen(arguments, env=at, stderr=subprocess.PIPE)
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while not output.exists() or output.read_text().count("\n") < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        _, errors = process.communicate(timeout=TIMEOUT_S)
        assert time.monotonic() - sent < 5
    finally:
        process.kill()
    assert process.returncode == 130
    assert re.search(rb"stopped: classified \d+ of 11", errors)
    done = len(output.read_text().splitlines())
    again = vision("classify", folder, "-o", output, env=at)
    assert f"{done} were there already, 1 failed" in again.stderr.decode()
    assert len(output.read_text().splitlines()) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("vision ", {"classify", "embed", "translate", "status", "page"}),
        ("vision tr", {"translate"}),
        ("vision classify --to", {"--top-k", "--token-file"}),
        ("vision translate --format ", {"png", "jpeg", "jpg", "webp"}),
    ],
)
def test_completion_in_bash(line: str, offered: set[str]) -> None:
    script = f"""
        eval "$(vision --show-completion bash)"
        COMP_LINE={line!r}
        COMP_WORDS=({line}{"''" if line.endswith(" ") else ""})
        COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        complete=$(complete -p vision | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        $complete vision "${{COMP_WORDS[$COMP_CWORD]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(VISION).parent}:{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-c", script], env={**QUIET, "PATH": path, "SHELL": "/bin/bash"},
        capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    assert set(run.stdout.split()) == offered


@pytest.mark.parametrize("command", ["classify", "embed", "translate", "status", "page"])
def test_help_has_examples(command: str) -> None:
    own = invoke(command, "--help").stdout
    assert len(re.findall(f"^ vision {command}", own, re.MULTILINE)) >= 2
    assert "--server" in own


def test_help_starts_with_examples() -> None:
    text = invoke("--help").stdout
    assert text.index("vision classify dog.jpg") < text.index("Options")
