"""``vision classify``."""

from __future__ import annotations

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
from vision_client.cli.photos import Photo, find
from vision_client.cli.records import CSV_HEADER, Results, as_csv, as_json, as_tabs, csv_line
from vision_client.cli.work import UntrainedWarning, work
from vision_client.client import RETRIES, SERVER, TIMEOUT_S
from vision_client.show import printable
from vision_client.tasks.classify import TOP_K, Classification


def classify(
    photo: Photos,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", "-k", min=TOP_K.low, max=TOP_K.high, show_default=str(TOP_K.default),
            help="Classes per photograph.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON per photograph.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="One row of CSV per class.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", dir_okay=False, metavar="FILE", show_default=False,
            help="Append to a file of JSON lines, or of CSV with --csv or the suffix .csv; "
            "photographs that are already in it are skipped.",
        ),
    ] = None,
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
    """Classify photographs: ranked bars in a terminal, plain data in a pipe.

    In a pipe: picture, rank, class number, label and probability, separated by tabs.

    [bold]vision classify dog.jpg[/]
    [bold]vision classify holidays -o holidays.csv[/]
    [bold]cat dog.jpg | vision classify - --json[/]
    """
    if json and csv:
        raise typer.BadParameter("one of --json and --csv")
    photos = find(photo)
    results = None
    if output is None:
        require_stdout()
    else:
        names = {photo.name for photo in photos}
        results = _open(output, csv, names, top_k or TOP_K.default)
    remaining = [p for p in photos if results is None or p.name not in results.done]
    warning = UntrainedWarning(err)

    def report(photo: Photo, answer: Classification) -> None:
        warning.check(answer)
        if results is not None:
            results.add(photo.name, answer)
        elif json or csv or not out.is_terminal:
            write = as_json if json else as_csv if csv else as_tabs
            text = write(photo.name, answer)
            if out.is_terminal:
                text = "".join(f"{printable(line)}\n" for line in text.split("\n")[:-1])
            print(text, end="", flush=True)
        else:
            if len(photos) > 1:
                out.print(Text(printable(photo.name), "bold"), soft_wrap=True)
            out.print(show.bars(answer.predictions), soft_wrap=True)

    if csv and results is None:
        print(csv_line(CSV_HEADER), end="")
    access = Server(server, grpc, token_file, ca, cert, cert_key)
    with access.connect(timeout, retries) as client:
        require_names(client, model=model)
        status = work(
            remaining,
            lambda photo: client.classify(photo.read(), model=model, top_k=top_k),
            report,
            jobs=jobs,
            verb="classified",
            skipped=len(photos) - len(remaining),
            console=err,
        )
    if results is not None:
        results.close()
    raise typer.Exit(status)


def _open(path: Path, csv: bool, pictures: set[str], classes: int) -> Results:
    is_csv = csv or path.suffix.lower() == ".csv"
    try:
        return Results(path, is_csv=is_csv, pictures=pictures, classes=classes)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
