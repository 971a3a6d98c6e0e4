"""Commands run as in a terminal, and a picture of what it showed."""

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
    """In one of 80 columns and 16 million colours: exit status and all that it showed."""
    leader, follower = pty.openpty()
    env = {"COLORTERM": "truecolor", **env, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(
        command, env=env, cwd=cwd, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    shown = b""
    try:
        while select.select([leader], [], [], TIMEOUT_S)[0] and (data := os.read(leader, 65536)):
            shown += data
    except OSError:  # Linux's end of a terminal whose programs have ended
        pass
    os.close(leader)
    try:
        return process.wait(TIMEOUT_S), shown.decode()
    finally:
        process.kill()


def plain(shown: str) -> str:
    """Without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def picture(browser: Browser, shown: str, title: str) -> bytes:
    """A PNG of a terminal window with ``shown`` in it."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text.from_ansi(shown.replace("\r\n", "\n")), soft_wrap=True)
    svg = console.export_svg(title=title)
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # which would be downloaded
    page = browser.new_page(viewport={"width": 1100, "height": 2000}, device_scale_factor=1.5)
    page.set_content(svg.replace("Fira Code", "DejaVu Sans Mono"))
    png = page.locator("svg").screenshot(omit_background=True)
    page.close()
    return png
