"""classify, translate, status and page."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from vision_client import health, show
from vision_client.answers import UNTRAINED, Answer, Classification, Translation
from vision_client.cli import photos as found
from vision_client.cli.connection import (
    CaOption,
    GrpcOption,
    RetriesOption,
    ServerOption,
    TimeoutOption,
    TokenOption,
    connect,
    connect_async,
)
from vision_client.cli.photos import STDIN, Photo
from vision_client.cli.records import CSV_HEADER, Results, as_csv, as_json, as_tabs, csv_line
from vision_client.cli.work import work
from vision_client.client import RETRIES, SERVER, TIMEOUT_S, Format
from vision_client.show import printable

out = Console()
err = Console(stderr=True)


class _Printable(TyperGroup):
    """Escapes control characters in usage errors, which quote arguments and so file names."""

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
    except Exception as error:  # Typer does not export the base of its own
        if isinstance(message := getattr(error, "message", None), str):
            error.message = printable(message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    cls=_Printable,
    help="Classify photographs with ResNet-101 and turn horses into zebras with CycleGAN, "
    "on a server.",
    epilog="Exit status: 0 all went well, 1 something failed and was told, 2 wrong usage, "
    "130 Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _named(photos: list[str]) -> list[str]:
    """Refuse an empty argument, as of an unset variable: ``Path`` takes it for this folder."""
    if "" in photos:
        raise typer.BadParameter("'' names no file")
    return photos


Photos: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO...", show_default=False, callback=_named,
        help="Files, folders with all that is below them, or - for standard input.",
    ),
]  # fmt: skip
Jobs: TypeAlias = Annotated[
    int, typer.Option("--jobs", "-j", min=1, max=64, help="Photographs at once.")
]
JOBS = 4
TOP_K = 5  # the server's default
INTERRUPTED = 130


@app.command()
def classify(
    photo: Photos,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", "-k", min=1, show_default=str(TOP_K), help="Classes to tell for each."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="A row of CSV for each class.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            dir_okay=False,
            metavar="FILE",
            show_default=False,
            help="Add to a file of JSON lines, or CSV by --csv or its name; photographs that are "
            "in it already are skipped.",
        ),
    ] = None,
    jobs: Jobs = JOBS,
    server: ServerOption = SERVER,
    grpc: GrpcOption = False,
    token_file: TokenOption = None,
    ca: CaOption = None,
    timeout: TimeoutOption = TIMEOUT_S,
    retries: RetriesOption = RETRIES,
) -> None:
    """What is in each photograph: ranked bars in a terminal, plain data in a pipe.

    In a pipe: picture, rank, class number, label and probability, between tabs.

    [bold]vision classify dog.jpg[/]
    [bold]vision classify holidays -o holidays.csv[/]
    [bold]cat dog.jpg | vision classify - --json[/]
    """
    if json and csv:
        raise typer.BadParameter("one of --json and --csv")
    everything = found.find(photo)
    if output is None:
        _require_stdout()
    pictures = {photo.name for photo in everything}
    results = _open(output, csv, pictures, top_k or TOP_K) if output is not None else None
    left = [p for p in everything if results is None or p.name not in results.done]
    warning = _Warning()
    several = len(everything) > 1

    def done(photo: Photo, answer: Classification) -> None:
        warning.of(answer)
        if results is not None:
            results.add(photo.name, answer)
        elif json or csv or not out.is_terminal:
            write = as_json if json else as_csv if csv else as_tabs
            text = write(photo.name, answer)
            if out.is_terminal:
                text = "".join(f"{printable(line)}\n" for line in text.split("\n")[:-1])
            print(text, end="", flush=True)
        else:
            if several:
                out.print(Text(printable(photo.name), "bold"), soft_wrap=True)
            out.print(show.bars(answer.predictions), soft_wrap=True)

    if csv and results is None:
        print(csv_line(CSV_HEADER), end="")
    with connect(server, grpc, token_file, ca, timeout, retries) as client:
        status = work(
            left,
            lambda photo: client.classify(photo.read(), top_k=top_k),
            done,
            jobs=jobs,
            verb="classified",
            skipped=len(everything) - len(left),
            console=err,
        )
    if results is not None:
        results.close()
    raise typer.Exit(status)


def _require_stdout() -> None:
    if sys.stdout is None:  # as after `>&-` in a shell
        raise typer.BadParameter("standard output is closed: -o says where the results go")


def _open(path: Path, csv: bool, pictures: set[str], classes: int) -> Results:
    is_csv = csv or path.suffix.lower() == ".csv"
    try:
        return Results(path, is_csv=is_csv, pictures=pictures, classes=classes)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error


@app.command()
def translate(
    photo: Photos,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            show_default=False,
            help="Where the pictures go, named as the photographs; - is standard output, and the "
            "default for one photograph in a pipe.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=64, max=1024, show_default="256", help="The shorter side, in multiples of 4 pixels."
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="Of the pictures.")] = "png",
    quality: Annotated[
        int | None, typer.Option(min=1, max=95, show_default="90", help="Of JPEG and WebP.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Pictures that are there already, too.")
    ] = False,
    jobs: Jobs = JOBS,
    server: ServerOption = SERVER,
    grpc: GrpcOption = False,
    token_file: TokenOption = None,
    ca: CaOption = None,
    timeout: TimeoutOption = TIMEOUT_S,
    retries: RetriesOption = RETRIES,
) -> None:
    """Each photograph as the generator paints it. A terminal shows a single one, before and after.

    Photographs whose picture is there already are skipped, so that a run that was interrupted goes
    on; --force does them again.

    [bold]vision translate horse.jpg -o zebras[/]
    [bold]vision translate stable -o zebras --format jpeg --size 512[/]
    [bold]vision translate - < horse.jpg > zebra.png[/]
    """
    if size is not None and size % 4:
        raise typer.BadParameter("a multiple of 4", param_hint="--size")
    to_stdout = str(output) == STDIN or (output is None and not out.is_terminal)
    if output is None and not to_stdout:
        raise typer.BadParameter("say where the pictures go: -o DIR", param_hint="--output")
    if to_stdout:
        _require_stdout()
    folder = None if to_stdout else output
    everything = found.find(photo, but=folder)
    if folder is None and len(everything) > 1:
        raise typer.BadParameter("standard output holds one picture: -o DIR", param_hint="--output")
    suffix = ".jpg" if format == "jpeg" else f".{format}"
    try:
        paths = found.outputs(everything, folder, suffix) if folder is not None else {}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
    except (found.Clash, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
    left = [p for p in everything if force or p not in paths or not _exists(paths[p])]
    warning = _Warning()

    def ask(photo: Photo) -> tuple[bytes, Translation]:
        data = photo.read()
        return data, client.translate(data, size=size, format=format, quality=quality)

    def done(photo: Photo, answered: tuple[bytes, Translation]) -> None:
        data, answer = answered
        warning.of(answer)
        if photo not in paths:
            sys.stdout.buffer.write(answer.data)
            sys.stdout.buffer.flush()
            return
        answer.save(paths[photo])
        if len(everything) == 1 and out.is_terminal:
            # What the server can read, Pillow here may not, which then raises many types of errors.
            with suppress(Exception):
                show.draw(show.side_by_side(data, answer.image()), out, os.environ)
            told = f"{paths[photo]} in {answer.seconds:.2f} s"
            out.print(Text(printable(told)), soft_wrap=True)

    with connect(server, grpc, token_file, ca, timeout, retries) as client:
        status = work(
            left, ask, done,
            jobs=jobs, verb="translated", skipped=len(everything) - len(left), console=err,
        )  # fmt: skip
    raise typer.Exit(status)


def _exists(path: Path) -> bool:
    """Unlike Path.exists, it does not raise where the name is too long: saving tells that."""
    return os.path.exists(path)  # noqa: PTH110


@app.command()
def status(
    server: ServerOption = SERVER,
    grpc: GrpcOption = False,
    token_file: TokenOption = None,
    ca: CaOption = None,
    timeout: TimeoutOption = 15.0,
) -> None:
    """Whether both networks truly answer: each is asked for a small picture. Status 1 unless so."""
    with connect(server, grpc, token_file, ca, timeout, retries=0) as client:
        models = health.check(client)
        for model in models:
            told = f"weights {model.weights}" if model.weights else "weights not told over gRPC"
            if model.weights == UNTRAINED:
                told += ": the answers mean nothing"
            answer = f"answers in {model.seconds:.2f} s, {told}" if model.answers else model.error
            print(printable(f"{model.model:<10} {answer}"))
        print(printable(f"at         {client.endpoint}"))
    raise typer.Exit(0 if all(model.answers for model in models) else 1)


@app.command()
def page(
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0: any.")] = 7860,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    server: ServerOption = SERVER,
    grpc: GrpcOption = False,
    token_file: TokenOption = None,
    ca: CaOption = None,
) -> None:
    """A page to try the server in a browser: drop a photograph, see classes and a zebra."""
    from vision_client.page import serve  # the other commands start without it

    client = connect_async(server, grpc, token_file, ca)
    raise typer.Exit(serve(client, port, open_browser=not no_open))


@app.callback(invoke_without_command=True)
def common(
    show_version: Annotated[
        bool, typer.Option("--version", help="Tell the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        print(f"vision {version('vision-client')}")
        raise typer.Exit


class _Warning:
    """Tells once, on standard error, that answers mean nothing."""

    def __init__(self) -> None:
        self._told = False

    def of(self, answer: Answer) -> None:
        if answer.untrained and not self._told:
            self._told = True
            err.print("[yellow]untrained networks: everything works, the answers mean nothing[/]")


def main() -> None:
    """The command `vision`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # file names may be no UTF-8
    code: Any = 0
    try:
        try:
            app()
        except SystemExit as ended:
            code = ended.code
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            told = f"{error.filename or 'standard output'}: {error.strerror}"
            print(printable(told), file=sys.stderr)
        code = code or 1
        if sys.stdout is not None:  # Python would write at its end what is left in it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if code == INTERRUPTED:
        os._exit(INTERRUPTED)  # the threads would first wait for what the server still owes
    sys.exit(code)
