"""The options that several commands share, and their consoles."""

from __future__ import annotations

import sys
from typing import Annotated, TypeAlias

import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)

JOBS = 4


def _not_empty(photos: list[str]) -> list[str]:
    """Refuse "", as from an unset shell variable: ``Path("")`` is the current folder."""
    if "" in photos:
        raise typer.BadParameter("'' names no file")
    return photos


Photos: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO", show_default=False, callback=_not_empty,
        help="Files, folders (searched recursively), addresses (https://...), which this machine "
        "downloads, or - for standard input.",
    ),
]  # fmt: skip
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="NAME", show_default="the server's first of this task",
        help="The network to ask; needed over gRPC.",
    ),
]  # fmt: skip
Jobs: TypeAlias = Annotated[
    int, typer.Option("--jobs", "-j", min=1, max=64, help="Photographs to send at once.")
]


def require_stdout() -> None:
    if sys.stdout is None:  # as after `>&-` in a shell
        raise typer.BadParameter("standard output is closed: use -o to write to a file")
