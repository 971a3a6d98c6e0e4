"""The application: its commands, ``--version`` and how it ends."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vision_client.cli.classify import classify
from vision_client.cli.embed import embed
from vision_client.cli.interrupts import interrupt_on_signals
from vision_client.cli.server import page, status
from vision_client.cli.translate import translate
from vision_client.show import printable

INTERRUPTED = 130


class _Printable(TyperGroup):
    """Escapes control characters in usage errors, which quote arguments such as file names."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _printable_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _printable_errors():
            return super().invoke(ctx)


@contextmanager
def _printable_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Typer does not export the base class of its errors
        if isinstance(message := getattr(error, "message", None), str):
            error.message = printable(message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    cls=_Printable,
    help="""Classify, embed and translate photographs on a server.

    [bold]vision status[/]  is the server ready?
    [bold]vision classify dog.jpg[/]
    [bold]vision classify holidays https://example.org/dog.jpg -o results.csv[/]
    [bold]vision translate horse.jpg -o zebra.png[/]
    [bold]vision embed holidays -o vectors.npz[/]

    --server URL or the environment variable VISION_SERVER names the server;
    each command's --help has more examples.
    """,
    epilog="Exit status: 0 success, 1 something failed, 2 wrong usage, 130 Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (classify, embed, translate, status, page):
    app.command()(command)


@app.callback(invoke_without_command=True)
def common(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        print(f"vision {version('vision-client')}")
        raise typer.Exit


def run() -> None:
    """Run the command of ``sys.argv`` and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # file names may not be UTF-8
    interrupt_on_signals()
    code: Any = 0
    try:
        try:
            app()
        except SystemExit as exit:
            code = exit.code
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            message = f"{error.filename or 'standard output'}: {error.strerror}"
            print(printable(message), file=sys.stderr)
        code = code or 1
        if sys.stdout is not None:  # else Python writes the rest of its buffer when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if code == INTERRUPTED:
        os._exit(INTERRUPTED)  # exiting normally would wait for the threads and their answers
    sys.exit(code)
