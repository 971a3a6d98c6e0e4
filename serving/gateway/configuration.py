"""Writes Envoy's configuration from the templates beside this module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from serving.archives import VERSION
from serving.gateway.uploads import SMALL_BYTES
from serving.keys import Client
from serving.sockets import Sockets

_FOLDER = Path(__file__).parent
_TEMPLATES = jinja2.Environment(  # noqa: S701 - YAML, not HTML
    loader=jinja2.FileSystemLoader(_FOLDER),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

# Envoy's own answers -> the contract's errors: status, type, message, and the response flags that
# tell Envoy's answer from one of the queue with the same status.
_FLAGS_UNAVAILABLE = ["UF", "UH", "UC", "UR", "LR", "NC", "UO", "OM"]
_REPLIES: tuple[tuple[int, str, str, list[str]], ...] = (
    (400, "BadRequest", "the request is not valid HTTP, or its path is malformed", []),
    (408, "RequestTimeout", "the request did not arrive in time", []),
    (413, "TooLarge", "the request has more than {request_bytes} bytes", []),
    (431, "TooLarge", "the headers are too large", []),
    (503, "Unavailable", "the server cannot answer now: try again", _FLAGS_UNAVAILABLE),
    (
        504,
        "DeadlineExceeded",
        "the time that the client or the server allows has passed",
        ["UT", "SI"],
    ),
)
# Seconds that clients should wait after Envoy's own 503.
_RETRY_AFTER_S = 2


@dataclass(frozen=True)
class Files:
    """The files of a running gateway, in the run folder ``run``."""

    run: Path

    @property
    def envoy(self) -> Path:
        return self.run / "envoy.yaml"

    @property
    def routes(self) -> Path:
        return self.run / "routes.yaml"

    @property
    def certificate(self) -> Path:
        return self.run / "certificate.yaml"

    @property
    def clients(self) -> Path:
        """The authority of client certificates."""
        return self.run / "clients.yaml"

    @property
    def log(self) -> Path:
        """Envoy's own log."""
        return self.run / "logs" / "gateway.log"

    @property
    def access_log(self) -> Path:
        """A line of JSON for each request."""
        return self.run / "logs" / "access.log"


@dataclass(frozen=True)
class GatewayLimits:
    """The gateway's limits in bytes, seconds and numbers of connections.

    A request has at most ``request_bytes``. ``memory_bytes`` is Envoy's heap. ``header_seconds``
    bounds the time until the headers have arrived, ``upload_seconds`` that until the whole request
    has, ``idle_seconds`` that of a connection without a request, and ``answer_seconds`` the time in
    the queue and with TorchServe together.
    """

    request_bytes: int
    memory_bytes: int
    connections: int
    header_seconds: int
    upload_seconds: int
    idle_seconds: int
    answer_seconds: int


@dataclass(frozen=True)
class GatewayModel:
    """A model's route, with at most ``slots`` requests with TorchServe and ``queue`` waiting.

    ``answer_seconds`` is the longest time with TorchServe.
    """

    name: str
    slots: int
    queue: int
    answer_seconds: int

    @property
    def pattern(self) -> str:
        """A regular expression that matches the name."""
        return re.escape(self.name)


def envoy_yaml(
    *,
    listeners: Mapping[str, tuple[str, int]],
    sockets: Sockets,
    models: Sequence[GatewayModel],
    limits: GatewayLimits,
    trusted_proxies: int,
    files: Files,
    has_tls: bool,
    needs_client_certificate: bool,
    traced: float | None = None,
) -> str:
    """Envoy's static configuration: listeners by name, filters, limits and clusters.

    ``traced`` is the share of requests to trace, or None for no traces.
    """
    replies = [
        (code, type, message.format(request_bytes=limits.request_bytes), flags)
        for code, type, message, flags in _REPLIES
    ]
    return _TEMPLATES.get_template("envoy.yaml.j2").render(
        listeners=listeners,
        sockets=sockets,
        models=models,
        limits=limits,
        small_bytes=SMALL_BYTES,
        trusted_proxies=trusted_proxies,
        files=files,
        has_tls=has_tls,
        needs_client_certificate=needs_client_certificate,
        traced=traced,
        folder=_FOLDER,
        replies=replies,
        retry_after=_RETRY_AFTER_S,
    )


def routes_yaml(
    models: Sequence[GatewayModel],
    limits: GatewayLimits,
    clients: Sequence[Client] | None,
) -> str:
    """The routes. ``clients`` is None if no API key is required."""
    return _TEMPLATES.get_template("routes.yaml.j2").render(
        models=models,
        version=VERSION.pattern,
        limits=limits,
        small_bytes=SMALL_BYTES,
        clients=None if clients is None else {client.key: client.name for client in clients},
    )


def certificate_yaml(chain: str, key: str) -> str:
    """The secret ``server``: the certificate chain and its private key, in PEM."""
    return _TEMPLATES.get_template("certificate.yaml.j2").render(chain=chain, key=key)


def clients_yaml(authority: str) -> str:
    """The secret ``clients``: the authority of client certificates, in PEM."""
    return _TEMPLATES.get_template("certificate.yaml.j2").render(authority=authority)
