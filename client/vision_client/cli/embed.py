"""``vision embed``."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

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
from vision_client.cli.interrupts import uninterrupted
from vision_client.cli.options import JOBS, Jobs, Model, Photos, err
from vision_client.cli.photos import Photo, find
from vision_client.cli.work import UntrainedWarning, work
from vision_client.client import RETRIES, SERVER, TIMEOUT_S
from vision_client.extras import extra
from vision_client.show import printable
from vision_client.tasks.embed import Embedding

SUFFIX = ".npz"


def embed(
    photo: Photos,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", dir_okay=False, metavar="FILE.npz", show_default=False,
            help="File for the vectors: NumPy's .npz.",
        ),
    ],
    normalize: Annotated[
        bool, typer.Option("--normalize", "-n", help="Vectors of length 1: their dot product is "
        "the cosine.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace a file that exists already.")
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
    """Turn photographs into vectors, for search, clustering or a classifier.

    The file has the arrays names, vectors (a row of float32 for each name)
    and weights, the name of the weights that all vectors come from.
    It is written at the end, also after Ctrl-C or errors, with the
    photographs that were answered by then; if FILE.npz exists, and
    photographs are missing, it is written beside it.

    [bold]vision embed holidays -o vectors.npz[/]
    [bold]vision embed dog.jpg https://example.org/cat.jpg --normalize -o vectors.npz[/]
    [bold]python -c "import numpy; print(numpy.load('vectors.npz')['vectors'].shape)"[/]
    """
    with extra("numpy", "vision embed"):
        import numpy as np
    if output.suffix.lower() != SUFFIX:
        raise typer.BadParameter(
            f"{output} must end in {SUFFIX}, NumPy's format: -o {output.with_suffix(SUFFIX)}",
            param_hint="--output",
        )
    if output.exists() and not force:
        raise typer.BadParameter(
            f"{output} exists already: another name, or --force to replace it",
            param_hint="--output",
        )
    photos = find(photo)
    partial = output.with_name(f".{secrets.token_hex(8)}.part")
    try:
        file = partial.open("xb")  # now: an hour later it would be too late to find out
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
    answers: dict[str, Embedding] = {}
    warning = UntrainedWarning(err)

    def report(photo: Photo, answer: Embedding) -> None:
        warning.check(answer)
        for first in list(answers.values())[:1]:
            _check_same_network(first, answer)
        answers[photo.name] = answer

    access = Server(server, grpc, token_file, ca, cert, cert_key)
    status = 1
    try:
        with file, access.connect(timeout, retries) as client:
            require_names(client, model=model)
            try:
                status = work(
                    photos,
                    lambda photo: client.embed(photo.read(), model=model, normalize=normalize),
                    report,
                    jobs=jobs, verb="embedded", skipped=0, console=err,
                )  # fmt: skip
            finally:
                with uninterrupted(), _naming(output):
                    if answers:
                        np.savez(file, **_arrays(answers))
                        file.close()
                        written = _publish(partial, output, replace=force and status == 0)
                        if written != output:
                            status = 1
                            message = f"{output} exists and stays; the vectors are in {written}"
                            err.print(Text(printable(message)), soft_wrap=True)
    finally:
        partial.unlink(missing_ok=True)
    raise typer.Exit(status)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError names ``path``."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _publish(partial: Path, output: Path, *, replace: bool) -> Path:
    """Rename ``partial`` to ``output``; to a name beside it if that exists, unless ``replace``."""
    path = output
    if not replace:
        beside = (output.with_name(f"{output.stem}-partial-{n}{SUFFIX}") for n in count(1))
        for path in chain([output], beside):
            with suppress(FileExistsError):
                path.open("xb").close()  # another command may do the same now
                break
    partial.replace(path)
    return path


def _check_same_network(first: Embedding, answer: Embedding) -> None:
    """Vectors of different networks cannot be compared. Raises ValueError."""
    if (answer.weights, len(answer)) != (first.weights, len(first)):
        raise ValueError(
            f"the network changed meanwhile: {answer.weights} answered with {len(answer)} features,"
            f" {first.weights} with {len(first)} before"
        )


def _arrays(answers: Mapping[str, Embedding]) -> dict[str, Any]:
    """The content of the file: see ``embed``."""
    import numpy as np

    return {
        "names": np.array(list(answers)),
        "vectors": np.stack([answer.numpy() for answer in answers.values()]),
        "weights": np.array(next(iter(answers.values())).weights or ""),
    }
