"""``vision status`` and ``vision page``."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from vision_client.answers import UNTRAINED
from vision_client.cli.connection import (
    CaOption,
    CertKeyOption,
    CertOption,
    GrpcOption,
    Server,
    ServerOption,
    TimeoutOption,
    TokenOption,
    require_names,
)
from vision_client.client import SERVER
from vision_client.errors import VisionError
from vision_client.extras import extra
from vision_client.models import Model
from vision_client.show import printable

WHOLE = "server"

Classifier: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", show_default="the server's first", help="The network that classifies."
    ),
]
Translator: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", show_default="the server's first", help="The network that translates."
    ),
]


def status(
    model: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", show_default=False, help="Only these networks."),
    ] = None,
    server: ServerOption = SERVER,
    grpc: GrpcOption = False,
    token_file: TokenOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    cert_key: CertKeyOption = None,
    timeout: TimeoutOption = 15.0,
) -> None:
    """Say which networks are ready; exit status 1 unless all of them are.

    Over gRPC only those that are named, or without a name the server as a whole.

    [bold]vision status[/]
    [bold]vision status resnet101 --server https://vision.example.org[/]
    """
    access = Server(server, grpc, token_file, ca, cert, cert_key)
    with access.connect(timeout, retries=0) as client:
        try:
            models = client.status(*(model or ()))
        except VisionError as error:
            models = ()
            print(printable(f"{WHOLE:<10} {error}"))
        for one in models:
            print(printable(f"{one.name or WHOLE:<10} {_describe(one)}"))
        print(printable(f"at         {client.endpoint}"))
    raise typer.Exit(0 if models and all(one.ready for one in models) else 1)


def _describe(model: Model) -> str:
    text = "ready" if model.ready else "not ready"
    if model.reason:
        text += f": {model.reason}"
    if model.weights:
        text += f", weights {model.weights}"
    if model.weights == UNTRAINED:
        text += ": the answers mean nothing"
    return text


def page(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 7860,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    server: ServerOption = SERVER,
    grpc: GrpcOption = False,
    token_file: TokenOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    cert_key: CertKeyOption = None,
    classify: Classifier = None,
    translate: Translator = None,
) -> None:
    """Serve a page to try the networks: drop a photograph, see its classes and its translation.

    [bold]vision page[/]
    [bold]vision page --server https://vision.example.org --classify vit_b_16 --port 0[/]
    """
    with extra("page", "vision page"):
        from vision_client.page import serve

    client = Server(server, grpc, token_file, ca, cert, cert_key).connect_async()
    require_names(client, classify=classify, translate=translate)
    models = {"classify": classify, "translate": translate}
    raise typer.Exit(serve(client, models, port, open_browser=not no_open))
