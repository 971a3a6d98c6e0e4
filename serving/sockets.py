"""The unix sockets and ports through which the processes of one server reach each other."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import httpx

# The longest path of a unix socket, in bytes.
LONGEST_PATH = 107
# Neither Linux nor macOS gives these to outgoing connections, nor Ray to its processes.
_PORTS = range(20000, 30000)


@dataclass(frozen=True)
class Sockets:
    """The sockets in ``folder``, which only the user of the server can enter.

    TorchServe's gRPC services cannot listen on a unix socket: ``grpc_port`` (inference) and
    ``grpc_management_port`` are on loopback, and TorchServe refuses calls without its token there.
    A port is 0 where it is not known.
    """

    folder: Path
    grpc_port: int = 0
    grpc_management_port: int = 0

    @property
    def inference(self) -> Path:
        """TorchServe's inference API; absent if it listens on the public address itself."""
        return self.folder / "inference"

    @property
    def management(self) -> Path:
        """TorchServe's management API."""
        return self.folder / "management"

    @property
    def metrics(self) -> Path:
        """TorchServe's metrics API."""
        return self.folder / "metrics"

    @property
    def admin(self) -> Path:
        """Envoy's admin API."""
        return self.folder / "admin"

    @property
    def control(self) -> Path:
        """The supervisor's health and models, over HTTP."""
        return self.folder / "control"

    @property
    def admission(self) -> Path:
        """The supervisor's health and the queue, over gRPC."""
        return self.folder / "admission"

    @property
    def reports(self) -> Path:
        """The workers tell the supervisor here, in datagrams, what they do."""
        return self.folder / "reports"

    @property
    def store(self) -> Path:
        """TorchServe's model store: links to the archives that it may load."""
        return self.folder / "store"

    @property
    def key_file(self) -> Path:
        """TorchServe writes its tokens here, in a file of mode 0600."""
        return self.folder / "key_file.json"


class Token(httpx.Auth):
    """Adds TorchServe's token. It is read for each request, because a restart changes it."""

    def __init__(self, read: Callable[[], str | None]) -> None:
        self._read = read

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        token = self._read()
        if token:
            request.headers["authorization"] = f"Bearer {token}"
        yield request


def client(socket: Path, token: Callable[[], str | None] = lambda: None) -> httpx.Client:
    """A client of the HTTP server that listens on ``socket``."""
    # A run folder's link to the sockets may be longer than the path of a socket can be.
    path = socket.resolve()

    def check(request: httpx.Request) -> None:
        if not path.exists():  # httpcore would leave its own socket open
            raise httpx.ConnectError(f"nothing listens on {path}", request=request)

    return httpx.Client(
        # Connections within this machine are cheap, so none is kept open.
        transport=httpx.HTTPTransport(
            uds=str(path), limits=httpx.Limits(max_keepalive_connections=0)
        ),
        base_url="http://localhost",
        auth=Token(token),
        event_hooks={"request": [check]},
    )


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Different free ports of the address ``host``; empty: of every interface.

    They are not of the range that the system gives to outgoing connections, one of which could take
    a port before the server that it is for listens on it.
    """
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(_PORTS, len(_PORTS)):
            if len(found) == count:
                break
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                found.append(port)
        return found
