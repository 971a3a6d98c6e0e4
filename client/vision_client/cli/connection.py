"""The options of the connection, and the client that they define."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from vision_client.client import LONGEST_TIMEOUT_S, AsyncClient, Client
from vision_client.endpoint import Access, Endpoint, Token
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
        help="File with an API key, read for each request. VISION_TOKEN may hold the key itself.",
    ),
]  # fmt: skip
CaOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--ca", envvar="VISION_CA", rich_help_panel=_PANEL, exists=True, dir_okay=False,
        help="PEM file of the authority to trust instead of the machine's.",
    ),
]  # fmt: skip
CertOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--cert", envvar="VISION_CERT", rich_help_panel=_PANEL, exists=True, dir_okay=False,
        help="PEM file of a client certificate.",
    ),
]  # fmt: skip
CertKeyOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--cert-key", envvar="VISION_CERT_KEY", rich_help_panel=_PANEL, exists=True,
        dir_okay=False, help="PEM file of its private key.",
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


@dataclass(frozen=True)
class Server:
    """The arguments that every command has: the server, and the access to it."""

    url: str
    grpc: bool
    token_file: Path | None
    ca: Path | None
    cert: Path | None
    cert_key: Path | None

    def connect(self, timeout: float, retries: int) -> Client:
        """typer.BadParameter if an argument is invalid."""
        with _as_usage_errors():
            return Client(
                _url(self.url, self.grpc), token=_token(self.token_file), ca=self.ca,
                cert=self._certificate(), timeout=timeout, retries=retries,
            )  # fmt: skip

    def connect_async(self) -> AsyncClient:
        """The same for an event loop, with the default timeout and retries."""
        with _as_usage_errors():
            return AsyncClient(
                _url(self.url, self.grpc), token=_token(self.token_file), ca=self.ca,
                cert=self._certificate(),
            )  # fmt: skip

    def _certificate(self) -> tuple[Path, Path] | None:
        if self.cert is None and self.cert_key is None:
            return None
        if self.cert is None or self.cert_key is None:
            raise ValueError("--cert and --cert-key belong together")
        return self.cert, self.cert_key


def require_names(client: Client | AsyncClient, **options: str | None) -> None:
    """typer.BadParameter if an option does not name a model and the server cannot list them."""
    missing = [f"--{option}" for option, name in options.items() if name is None]
    if client.endpoint.is_grpc and missing:
        raise typer.BadParameter(
            "over gRPC the server does not list its models: name the model; `vision status` "
            "without gRPC lists them",
            param_hint=" and ".join(missing),
        )


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
    return read_file(file).decode(errors="replace").strip()
