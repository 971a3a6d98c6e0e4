"""Runs commands in a pseudo-terminal and draws its content as a picture."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser
from rich.console import Console
from rich.text import Text

TIMEOUT_S = 120
COLUMNS = 80


def in_terminal(
    command: Sequence[str | Path], env: dict[str, str], cwd: Path | None = None
) -> tuple[int, str]:
    """Run ``command`` in a true-colour terminal of 80 columns; returns exit status and output."""
    leader, follower = pty.openpty()
    env = {"COLORTERM": "truecolor", **env, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(
        command, env=env, cwd=cwd, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    output = b""
    try:
        while select.select([leader], [], [], TIMEOUT_S)[0] and (data := os.read(leader, 65536)):
            output += data
    except OSError:  # Linux reports the end of the last program this way
        pass
    os.close(leader)
    try:
        return process.wait(TIMEOUT_S), output.decode()
    finally:
        process.kill()


def plain(output: str) -> str:
    """``output`` without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)


def picture(browser: Browser, output: str, title: str) -> bytes:
    """A PNG of a terminal window that shows ``output``."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text.from_ansi(output.replace("\r\n", "\n")), soft_wrap=True)
    svg = console.export_svg(title=title)
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # avoids a download
    page = browser.new_page(viewport={"width": 1100, "height": 2000}, device_scale_factor=1.5)
    page.set_content(svg.replace("Fira Code", "DejaVu Sans Mono"))
    png = page.locator("svg").screenshot(omit_background=True)
    page.close()
    return png
