"""The server's URL, and the credentials for it."""

from __future__ import annotations

import ipaddress
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, urlsplit

from vision_client.pictures import read_file

Token: TypeAlias = str | Callable[[], str] | None
Path: TypeAlias = str | os.PathLike[str]
# The ports of URLs without one.
_PORTS = {"http": 80, "https": 443, "grpc": 7070, "grpcs": 443}


@dataclass(frozen=True)
class Endpoint:
    """``scheme`` is http, https, grpc or grpcs; ``prefix`` is a path before the API's, or ""."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """ValueError if ``url`` is not the URL of a server; the message has examples."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{url}: {error}") from error
        if parts.scheme not in _PORTS or not parts.hostname or parts.query:
            raise ValueError(
                f"{url!r} names no server; it looks like http://127.0.0.1:8080, https://host, "
                "grpc://127.0.0.1:7070 or grpcs://host"
            )
        return cls(
            parts.scheme,
            parts.hostname,
            port if port is not None else _PORTS[parts.scheme],
            parts.path.rstrip("/"),
        )

    @property
    def is_grpc(self) -> bool:
        return self.scheme.startswith("grpc")

    @property
    def is_secure(self) -> bool:
        return self.scheme.endswith("s")

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine, which is never reached through a proxy."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}{self.prefix}"

    def prediction(self, model: str) -> str:
        """The URL of ``model`` over REST. ValueError if ``model`` would change the path."""
        if model in ("", ".", ".."):
            raise ValueError(f"{model!r} is not the name of a model")
        return f"{self}/predictions/{quote(model, safe='')}"


def warn_of_plain_token(endpoint: Endpoint, token: Token) -> None:
    """Issue a UserWarning if ``token`` would go to another machine unencrypted.

    The warning points to the line that constructed the client.
    """
    if token and not endpoint.is_secure and not endpoint.is_loopback:
        warnings.warn(
            f"the token is sent without encryption to {endpoint}; use https:// or grpcs://",
            stacklevel=3,
        )


@dataclass(frozen=True)
class Access:
    """The client's credentials, and the authority that it trusts.

    ``token`` is an API key or a function that returns one. ``ca`` is the PEM file of the trusted
    authority; ``cert`` has the PEM files of the client's certificate and of its private key.
    """

    token: Token = None
    ca: Path | None = None
    cert: tuple[Path, Path] | None = None

    def authorization(self) -> dict[str, str]:
        """The header; a token function is called each time, because keys change.

        ValueError if the token cannot be sent as a header.
        """
        token = self.token() if callable(self.token) else self.token
        if token and not (token.isascii() and token.isprintable()):
            raise ValueError("a token is one line of ASCII characters, and this one is not")
        return {"authorization": f"Bearer {token}"} if token else {}

    def authority(self) -> bytes | None:
        """The content of ``ca``. OSError if it cannot be read."""
        return None if self.ca is None else read_file(self.ca)

    def certificate(self) -> tuple[bytes, bytes] | None:
        """The contents of ``cert``. OSError if a file cannot be read."""
        if self.cert is None:
            return None
        certificate, key = self.cert
        return read_file(certificate), read_file(key)
