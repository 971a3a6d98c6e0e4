"""``vision status`` and ``vision page``."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from vision_client.answers import UNTRAINED
from vision_client.cli.connection import (
    CaOption,
    GrpcOption,
    ServerOption,
    TimeoutOption,
    TokenOption,
    connect,
    connect_async,
)
from vision_client.client import SERVER
from vision_client.extras import extra
from vision_client.health import ModelHealth, check
from vision_client.models import DEFAULTS
from vision_client.show import printable

Classifier: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", show_default=DEFAULTS["classify"], help="The network that classifies."
    ),
]
Translator: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", show_default=DEFAULTS["translate"], help="The network that translates."
    ),
]


def status(
    server: ServerOption = SERVER,
    grpc: GrpcOption = False,
    token_file: TokenOption = None,
    ca: CaOption = None,
    timeout: TimeoutOption = 15.0,
    classify: Classifier = None,
    translate: Translator = None,
) -> None:
    """Send a small picture to each network; exit status 1 unless all of them answer.

    If a network is named, only those that are named are asked.
    """
    with connect(server, grpc, token_file, ca, timeout, retries=0) as client:
        try:
            models = check(client, _named(classify, translate) or DEFAULTS)
        except ValueError as error:  # of a name that is none
            raise typer.BadParameter(str(error)) from error
        for model in models:
            print(printable(f"{model.model:<10} {_describe(model)}"))
        print(printable(f"at         {client.endpoint}"))
    raise typer.Exit(0 if all(model.answers for model in models) else 1)


def _named(classify: str | None, translate: str | None) -> dict[str, str]:
    names = {"classify": classify, "translate": translate}
    return {task: name for task, name in names.items() if name is not None}


def _describe(model: ModelHealth) -> str:
    if not model.answers:
        return str(model.error)
    weights = f"weights {model.weights}" if model.weights else "weights not reported over gRPC"
    if model.weights == UNTRAINED:
        weights += ": the answers mean nothing"
    return f"answers in {model.seconds:.2f} s, {weights}"


def page(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 7860,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    server: ServerOption = SERVER,
    grpc: GrpcOption = False,
    token_file: TokenOption = None,
    ca: CaOption = None,
    classify: Classifier = None,
    translate: Translator = None,
) -> None:
    """Serve a page to try the networks: drop a photograph, see its classes and its translation."""
    with extra("page", "vision page"):
        from vision_client.page import serve

    client = connect_async(server, grpc, token_file, ca)
    models = {**DEFAULTS, **_named(classify, translate)}
    raise typer.Exit(serve(client, models, port, open_browser=not no_open))
