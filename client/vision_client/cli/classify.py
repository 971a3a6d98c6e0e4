"""``vision classify``."""

from __future__ import annotations

from contextlib import nullcontext
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
from vision_client.cli.origin import Question, unanswered
from vision_client.cli.photos import STDIN, Photo, find
from vision_client.cli.records import CSV_HEADER, Results, as_csv, as_json, as_tabs, csv_line
from vision_client.cli.work import UntrainedWarning, exits_on_errors, work
from vision_client.client import RETRIES, SERVER, TIMEOUT_S
from vision_client.show import printable
from vision_client.tasks.classify import CLASSIFY, TOP_K, Classification


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
            help="File of results to write or continue: CSV if it ends in .csv, JSON lines if it "
            "ends in .jsonl.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Classify again what FILE has already.")
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
    """Classify photographs: ranked bars in a terminal, plain data in a pipe.

    In a pipe: picture, rank, class number, label and probability, separated by tabs.

    With -o a repeated command continues: photographs are skipped whose answer in FILE is of the
    same network, weights and options. Others are replaced; --force replaces all. Answers of
    standard input are added.

    [bold]vision classify dog.jpg[/]
    [bold]vision classify holidays https://example.org/dog.jpg -o results.csv[/]
    [bold]vision classify holidays -o results.jsonl --top-k 1[/]
    [bold]cat dog.jpg | vision classify - --json[/]
    """
    if json and csv:
        raise typer.BadParameter("one of --json and --csv")
    photos = find(photo)
    results = None
    if output is None or str(output) == STDIN:
        require_stdout()
    else:
        results = _open(output, _is_csv(output, json, csv), photos)
    warning = UntrainedWarning(err)

    def report(photo: Photo, answer: Classification) -> None:
        warning.check(answer)
        about = question.origin(answer)
        if results is not None:
            results.add(photo.name, about, answer)
        elif json or csv or not out.is_terminal:
            write = as_json if json else as_csv if csv else as_tabs
            text = write(photo.name, about, answer)
            if out.is_terminal:
                text = "".join(f"{printable(line)}\n" for line in text.split("\n")[:-1])
            print(text, end="", flush=True)
        else:
            if len(photos) > 1:
                out.print(Text(printable(photo.name), "bold"), soft_wrap=True)
            out.print(show.bars(answer.predictions), soft_wrap=True)

    access = Server(server, grpc, token_file, ca, cert, cert_key)
    with results or nullcontext(), access.connect(timeout, retries) as client:
        require_names(client, model=model)
        with exits_on_errors(err):
            question = Question(client, CLASSIFY, model, top_k=top_k or TOP_K.default)
            earlier = {} if results is None or force else results.earlier
            remaining = unanswered(photos, earlier, question, err)
        if csv and results is None:
            print(csv_line(CSV_HEADER), end="")
        status = work(
            remaining,
            lambda photo: client.classify(photo.read(), model=question.model, top_k=top_k),
            report,
            jobs=jobs,
            verb="classified",
            skipped=len(photos) - len(remaining),
            console=err,
        )
    raise typer.Exit(status)


# What the suffix of a result file says of its content.
_SUFFIXES = {".csv": "--csv", ".jsonl": "--json", ".ndjson": "--json"}


def _is_csv(path: Path, json: bool, csv: bool) -> bool:
    """Whether ``path`` gets CSV. typer.BadParameter if its suffix and the options disagree."""
    given = "--csv" if csv else "--json" if json else None
    meant = _SUFFIXES.get(path.suffix.lower())
    if given and meant and given != meant:
        raise typer.BadParameter(
            f"{path} would contain what {given} says, not what its name says; leave out {given}, "
            "or choose another name",
            param_hint="--output",
        )
    if not given and not meant and path.suffix:
        raise typer.BadParameter(
            f"results are CSV or JSON lines, not {path.suffix}: name the file "
            f"{path.with_suffix('.csv')}, which spreadsheets open, or {path.with_suffix('.jsonl')}"
            " (--csv and --json write them to a file of any name)",
            param_hint="--output",
        )
    return (given or meant) == "--csv"


def _open(path: Path, is_csv: bool, photos: list[Photo]) -> Results:
    try:
        return Results(path, is_csv=is_csv, pictures={photo.name for photo in photos} - {STDIN})
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
