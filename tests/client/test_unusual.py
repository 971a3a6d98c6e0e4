"""The command ``vision`` with unusual files, streams and options, on a fake server."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from tests.client.conftest import PREDICTIONS, VISION
from tests.standin import LIMIT_S, Answering
from tools.terminal import in_terminal, plain

pytestmark = pytest.mark.slow

PICTURE = b"\x89PNG and more"


def vision(
    *arguments: str | Path, server: Answering, redirect: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run it in a shell with the redirections ``redirect``."""
    env = {**os.environ, "VISION_SERVER": server.url, "COLUMNS": "200"}
    return subprocess.run(
        ["bash", "-c", f'exec "$@" {redirect}', "bash", VISION, *map(str, arguments)],
        env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"the photograph")
    return path


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_photographs_are_not_overwritten(photo: Path, force: tuple[str, ...]) -> None:
    options: tuple[str | Path, ...] = ("-o", photo.parent, "--format", "jpeg", *force)
    with Answering.started(body=PICTURE) as server:
        run = vision("translate", photo.parent, *options, server=server)
    assert run.returncode == 2
    assert "would replace the photograph" in run.stderr
    assert photo.read_bytes() == b"the photograph"
    assert server.asked == []


def test_a_name_that_is_too_long_fails_and_the_rest_goes_on(photo: Path) -> None:
    long = photo.with_name("n" * 300)
    with Answering.started(body=PICTURE) as server:
        run = vision("translate", long, photo, "-o", photo.parent / "out", server=server)
    assert run.returncode == 1
    assert f"failed {long}: File name too long" in run.stderr
    assert "Traceback" not in run.stderr
    assert (photo.parent / "out" / "photo.png").read_bytes() == PICTURE


def test_the_longest_name_is_saved(photo: Path) -> None:
    longest = photo.with_name("n" * 251 + ".jpg")
    photo.rename(longest)
    with Answering.started(body=PICTURE) as server:
        run = vision("translate", longest, "-o", photo.parent / "out", server=server)
    assert (run.returncode, run.stderr) == (0, "")
    assert (photo.parent / "out" / f"{longest.stem}.png").read_bytes() == PICTURE


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_picture_that_cannot_be_shown_is_saved(photo: Path) -> None:
    """Pillow refuses so many pixels as a decompression bomb."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    photo.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    pixel = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    png = (
        b"\x89PNG\r\n\x1a\n" + pixel + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    )
    output = photo.parent / "out"
    with Answering.started(body=png) as server:
        environment = {**os.environ, "VISION_SERVER": server.url}
        status, shown = in_terminal([VISION, "translate", photo, "-o", output], environment)
    assert (output / "photo.png").read_bytes() == png
    assert "Traceback" not in shown
    assert status == 0
    assert f"{output}/photo.png in" in plain(shown).replace("\r\n", "")


def test_a_loop_of_links_is_not_a_folder(photo: Path) -> None:
    loop = photo.parent / "loop"
    loop.symlink_to(loop)
    with Answering.started(body=PICTURE) as server:
        run = vision("translate", photo.parent, "-o", loop, server=server)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


def test_closed_streams_are_reported(photo: Path) -> None:
    with Answering.started(body=PREDICTIONS) as server:
        read = vision("classify", "-", server=server, redirect="<&-")
        written = vision("classify", photo, server=server, redirect=">&-")
        translated = vision("translate", photo, server=server, redirect=">&-")
        assert server.asked == []
        output = photo.parent / "results.csv"
        kept = vision("classify", photo, "-o", output, server=server, redirect=">&-")
    assert (read.returncode, read.stderr) == (1, "failed -: standard input is closed\n")
    for run in (written, translated):
        assert run.returncode == 2
        assert "standard output is closed" in run.stderr
        assert "Traceback" not in run.stderr
    assert (kept.returncode, kept.stderr) == (0, "")
    assert "cat" in output.read_text()


@pytest.mark.parametrize("arguments", [("status",), ("--version",), ("classify", "--help")])
def test_a_full_device_is_reported(arguments: tuple[str, ...]) -> None:
    with Answering.started(body=PREDICTIONS) as server:
        run = vision(*arguments, server=server, redirect=">/dev/full")
    assert (run.returncode, run.stderr) == (1, "standard output: No space left on device\n")


@pytest.mark.parametrize("timeout", ["inf", "nan", "1e300", "1e12", "0"])
def test_a_timeout_out_of_range(photo: Path, timeout: str) -> None:
    with Answering.started(body=PREDICTIONS) as server:
        run = vision("classify", photo, "--timeout", timeout, server=server)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert server.asked == []
