"""``vision translate``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from vision_client import show
from vision_client.cli.connection import (
    CaOption,
    CertKeyOption,
    CertOption,
    GrpcOption,
    RetriesOption,
    Server,
    ServerOption,
    TimeoutOption,
    TokenOption,
    require_names,
)
from vision_client.cli.options import JOBS, Jobs, Model, Photos, err, out, require_stdout
from vision_client.cli.photos import STDIN, Clash, Photo, find, outputs
from vision_client.cli.work import UntrainedWarning, work
from vision_client.client import RETRIES, SERVER, TIMEOUT_S
from vision_client.show import printable
from vision_client.tasks.translate import FORMATS, QUALITY, SIZE, Format, Translation


def translate(
    photo: Photos,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", show_default=False,
            help="Folder for the pictures, which are named as the photographs; - is standard "
            "output, the default for one photograph in a pipe.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=SIZE.low, max=SIZE.high, show_default=str(SIZE.default),
            help="Shorter side in pixels; the network may take only multiples of a number.",
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="Format of the pictures.")] = FORMATS[0],
    quality: Annotated[
        int | None,
        typer.Option(
            min=QUALITY.low, max=QUALITY.high, show_default=str(QUALITY.default),
            help="Quality of JPEG and WebP.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace pictures that exist already.")
    ] = False,
    model: Model = None,
    jobs: Jobs = JOBS,
    server: ServerOption = SERVER,
    grpc: GrpcOption = False,
    token_file: TokenOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    cert_key: CertKeyOption = None,
    timeout: TimeoutOption = TIMEOUT_S,
    retries: RetriesOption = RETRIES,
) -> None:  # fmt: skip
    """Translate photographs. A terminal shows a single one before and after.

    Photographs whose picture exists already are skipped, so that an interrupted run can be
    continued; --force translates them again.

    [bold]vision translate horse.jpg -o translated[/]
    [bold]vision translate stable -o translated --format jpeg --size 512[/]
    [bold]vision translate - < horse.jpg > translated.png[/]
    """
    to_stdout = str(output) == STDIN or (output is None and not out.is_terminal)
    if output is None and not to_stdout:
        raise typer.BadParameter("say where the pictures go: -o DIR", param_hint="--output")
    if to_stdout:
        require_stdout()
    folder = None if to_stdout else output
    photos = find(photo, exclude=folder)
    if folder is None and len(photos) > 1:
        raise typer.BadParameter("standard output holds one picture: -o DIR", param_hint="--output")
    suffix = ".jpg" if format == "jpeg" else f".{format}"
    try:
        paths = outputs(photos, folder, suffix) if folder is not None else {}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
    except (Clash, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
    remaining = [p for p in photos if force or p not in paths or not _exists(paths[p])]
    warning = UntrainedWarning(err)

    def ask(photo: Photo) -> tuple[bytes, Translation]:
        data = photo.read()
        return data, client.translate(data, model=model, size=size, format=format, quality=quality)

    def report(photo: Photo, result: tuple[bytes, Translation]) -> None:
        data, answer = result
        warning.check(answer)
        if photo not in paths:
            sys.stdout.buffer.write(answer.data)
            sys.stdout.buffer.flush()
            return
        answer.save(paths[photo])
        if len(photos) == 1 and out.is_terminal:
            # Pillow may be unable to read what the server reads; its errors have many types.
            with suppress(Exception):
                show.draw(show.side_by_side(data, answer.image()), out, os.environ)
            message = f"{paths[photo]} in {answer.seconds:.2f} s"
            out.print(Text(printable(message)), soft_wrap=True)

    access = Server(server, grpc, token_file, ca, cert, cert_key)
    with access.connect(timeout, retries) as client:
        require_names(client, model=model)
        status = work(
            remaining, ask, report,
            jobs=jobs, verb="translated", skipped=len(photos) - len(remaining), console=err,
        )  # fmt: skip
    raise typer.Exit(status)


def _exists(path: Path) -> bool:
    """Path.exists raises if the name is too long; here saving reports that."""
    return os.path.exists(path)  # noqa: PTH110
