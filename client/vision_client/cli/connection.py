"""The options of the connection, and the client that they define."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from vision_client.client import LONGEST_TIMEOUT_S, AsyncClient, Client
from vision_client.endpoint import Access, Endpoint, Token
from vision_client.errors import MALFORMED
from vision_client.pictures import read_file
from vision_client.show import printable

GRPC_PORT = 7070

_PANEL = "The server"

ServerOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--server", "-s", envvar="VISION_SERVER", rich_help_panel=_PANEL,
        help="URL: http://, https://, grpc:// or grpcs:// with host and port.",
    ),
]  # fmt: skip
GrpcOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--grpc", rich_help_panel=_PANEL,
        help="Use gRPC, on port 7070 of the host unless the URL is a gRPC one.",
    ),
]  # fmt: skip
TokenOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--token-file", rich_help_panel=_PANEL, exists=True, dir_okay=False,
        help="File with a token, or TorchServe's key_file.json. VISION_TOKEN may hold a token.",
    ),
]  # fmt: skip
CaOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--ca", rich_help_panel=_PANEL, exists=True, dir_okay=False,
        help="PEM file of the authority to trust instead of the machine's.",
    ),
]  # fmt: skip
TimeoutOption: TypeAlias = Annotated[
    float,
    typer.Option(
        min=0.001, max=LONGEST_TIMEOUT_S, rich_help_panel=_PANEL, help="Seconds for each attempt."
    ),
]
RetriesOption: TypeAlias = Annotated[
    int, typer.Option(min=0, rich_help_panel=_PANEL, help="More attempts if the server is busy.")
]


def connect(
    server: str, grpc: bool, token_file: Path | None, ca: Path | None, timeout: float, retries: int
) -> Client:
    """A client of ``server``; typer.BadParameter if an argument is invalid."""
    with _as_usage_errors():
        return Client(
            _url(server, grpc), token=_token(token_file), ca=ca, timeout=timeout, retries=retries
        )


def connect_async(server: str, grpc: bool, token_file: Path | None, ca: Path | None) -> AsyncClient:
    """The same for an event loop, with the default timeout and retries."""
    with _as_usage_errors():
        return AsyncClient(_url(server, grpc), token=_token(token_file), ca=ca)


@contextmanager
def _as_usage_errors() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        try:
            yield
        except (ValueError, OSError) as error:
            raise typer.BadParameter(str(error)) from error
    for warning in caught:
        print(printable(f"warning: {warning.message}"), file=sys.stderr)


def _url(server: str, grpc: bool) -> str:
    endpoint = Endpoint.parse(server)
    if not grpc or endpoint.is_grpc:
        return server
    if endpoint.is_secure:  # a proxy, which has one port for both
        return f"grpcs://{endpoint.address}"
    return f"grpc://{replace(endpoint, port=GRPC_PORT).address}"


def _token(file: Path | None) -> Token:
    """The token in ``file``, which is read for each request, or in VISION_TOKEN.

    ValueError if it is not a token, OSError if the file cannot be read.
    """
    token = os.environ.get("VISION_TOKEN") if file is None else lambda: _read(file)
    Access(token).authorization()  # report a bad token before the first request
    return token


def _read(file: Path) -> str:
    text = read_file(file).decode(errors="replace")
    if not text.lstrip().startswith("{"):
        return text.strip()
    try:
        return str(json.loads(text)["inference"]["key"])
    except MALFORMED as error:
        raise ValueError(f"{file} is not a key_file.json of TorchServe") from error
