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
from vision_client.cli.made import Made
from vision_client.cli.options import JOBS, Jobs, Model, Photos, err, out, require_stdout
from vision_client.cli.origin import Question, unanswered
from vision_client.cli.photos import STDIN, Clash, Photo, find, outputs, refuse_originals
from vision_client.cli.work import UntrainedWarning, exits_on_errors, work
from vision_client.client import RETRIES, SERVER, TIMEOUT_S
from vision_client.folders import SUFFIXES
from vision_client.show import printable
from vision_client.tasks.translate import (
    FORMAT_BY_SUFFIX,
    QUALITY,
    SIZE,
    TRANSLATE,
    Format,
    Translation,
    server_format,
)


def _path(text: str) -> Path:
    """Refuse "", as from an unset shell variable: ``Path("")`` is the current folder."""
    if not text:
        raise typer.BadParameter("'' names no folder and no file")
    return Path(text)


def translate(
    photo: Photos,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", parser=_path, metavar="DIR|FILE", show_default=False,
            help="Folder for the pictures, which are named as the photographs; or the .png, .jpg "
            "or .webp file for a single one; - is standard output, the default for one photograph "
            "in a pipe.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=SIZE.low, max=SIZE.high, show_default=str(SIZE.default),
            help="Shorter side in pixels; the network may take only multiples of a number.",
        ),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(
            case_sensitive=False, show_default="that of FILE, or png",
            help="Format of the pictures.",
        ),
    ] = None,
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

    Pictures that exist already are skipped, so that an interrupted run can be continued. Those that
    an earlier run made with other weights or options are replaced; one of another photograph is an
    error; --force replaces all.

    [bold]vision translate horse.jpg -o zebra.png[/]
    [bold]vision translate stable https://example.org/horse.jpg -o translated[/]
    [bold]vision translate stable -o translated --format jpeg --size 512[/]
    [bold]vision translate - < horse.jpg > translated.png[/]
    """
    to_stdout = str(output) == STDIN or (output is None and not out.is_terminal)
    if output is None and not to_stdout:
        raise typer.BadParameter("say where the pictures go: -o DIR", param_hint="--output")
    if to_stdout:
        require_stdout()
    file = None if to_stdout or output is None else _file_format(output)
    wanted = server_format(format)
    if file and wanted not in (None, file):
        raise typer.BadParameter(
            f"{output} would be {wanted}, not what its name says; leave out --format, or choose "
            "another name",
            param_hint="--output",
        )
    wanted = wanted or file or FORMAT_BY_SUFFIX[".png"]
    folder = None if to_stdout or file else output
    try:
        made = Made(folder) if folder is not None else None
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
    photos = find(photo, folder, lambda path: made is not None and made.origin(path) is not None)
    if folder is None and len(photos) > 1:
        name = "standard output" if to_stdout else output
        raise typer.BadParameter(f"{name} holds one picture: -o DIR", param_hint="--output")
    try:
        if folder is not None:
            paths = outputs(photos, folder, ".jpg" if wanted == "jpeg" else f".{wanted}")
        else:
            paths = {photos[0]: output} if output is not None and file else {}
            refuse_originals(photos, paths.values())
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        existing = [p for p in photos if not force and p in paths and _exists(paths[p])]
        for one in existing:
            if made is None or one.name == STDIN:  # standard input may be another photograph
                raise Clash(f"{paths[one]} exists already: --force replaces it")
            with suppress(OSError):  # the photograph is gone: its picture is kept
                made.require_same(paths[one], one)
    except (Clash, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
    origins = {p.name: made.origin(paths[p]) for p in existing} if made is not None else {}
    earlier = {name: origin for name, origin in origins.items() if origin is not None}
    kept = len(origins) - len(earlier)
    warning = UntrainedWarning(err)

    def ask(photo: Photo) -> tuple[bytes, Translation]:
        data = photo.read()
        return data, client.translate(
            data, model=question.model, size=size, format=wanted, quality=quality
        )

    def report(photo: Photo, result: tuple[bytes, Translation]) -> None:
        data, answer = result
        warning.check(answer)
        if photo not in paths:
            sys.stdout.buffer.write(answer.data)
            sys.stdout.buffer.flush()
            return
        if made is not None:
            made.add(paths[photo], question.origin(answer), answer.data, photo, data)
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
        with exits_on_errors(err):
            question = Question(client, TRANSLATE, model, size=size, quality=quality)
            remaining = unanswered(
                [p for p in photos if p.name in earlier or p.name not in origins],
                earlier,
                question,
                err,
            )
        if kept:
            them = "it" if kept == 1 else "them"
            err.print(
                f"{kept} kept: this command is not known to have made {them}; --force replaces "
                f"{them}",
                highlight=False,
                soft_wrap=True,
            )
        status = work(
            remaining, ask, report,
            jobs=jobs, verb="translated", skipped=len(photos) - len(remaining), console=err,
        )  # fmt: skip
    raise typer.Exit(status)


def _file_format(output: Path) -> Format | None:
    """The format that the name of ``output`` says; None if it is a folder.

    typer.BadParameter if it is that of a picture that the server does not write.
    """
    suffix = output.suffix.lower()
    if os.path.isdir(output):  # noqa: PTH112 - Path.is_dir raises if a name is too long
        return None
    if suffix in SUFFIXES - set(FORMAT_BY_SUFFIX):
        png, jpg, webp = (output.with_suffix(suffix) for suffix in (".png", ".jpg", ".webp"))
        raise typer.BadParameter(
            f"the server does not write {suffix}: name it {png}, {jpg} or {webp}",
            param_hint="--output",
        )
    return FORMAT_BY_SUFFIX.get(suffix)


def _exists(path: Path) -> bool:
    """Path.exists raises if the name is too long; here saving reports that."""
    return os.path.exists(path)  # noqa: PTH110
