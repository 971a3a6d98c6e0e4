"""The four kinds of client behind one interface, and servers with special behaviour."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serving.config import Config
from serving.runfolder import RunFolder
from tests.running import Command, MakeConfig, Running
from vision_client import AsyncClient, Classification, Client, Translation
from vision_client.models import DEFAULTS

# The timeout of steps that take moments.
LIMIT_S = 60
VISION = str(Path(sys.executable).with_name("vision"))
KINDS = [(scheme, kind) for scheme in ("http", "grpc") for kind in (Client, AsyncClient)]

# Restricts the fixture ``kind`` to REST.
OVER_HTTP = pytest.mark.parametrize(
    "kind", KINDS[:2], indirect=True, ids=lambda param: param[1].__name__
)

PREDICTIONS = b'{"predictions": [{"class_id": 1, "label": "cat", "probability": 0.5}]}'


class Blocking:
    """An AsyncClient with its own event loop and the interface of Client."""

    def __init__(self, server: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(server, **options)

    def classify(self, *arguments: Any, **options: Any) -> Classification:
        return self._runner.run(self._client.classify(*arguments, **options))

    def translate(self, *arguments: Any, **options: Any) -> Translation:
        return self._runner.run(self._client.translate(*arguments, **options))

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@dataclass(frozen=True)
class Kind:
    """``scheme`` is http or grpc."""

    scheme: str
    make: Callable[..., Client | Blocking]


@pytest.fixture(params=KINDS, ids=lambda param: f"{param[0]}-{param[1].__name__}")
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """Each transport with each class; what ``make`` returns is closed after the test."""
    scheme, client_class = request.param
    with ExitStack() as stack:

        def make(server: str, **options: Any) -> Client | Blocking:
            client = (Client if client_class is Client else Blocking)(server, **options)
            stack.callback(client.close)
            return client

        yield Kind(scheme, make)


def vision(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a pipe."""
    return subprocess.run(
        [VISION, *map(str, arguments)], env={**os.environ, **environment}, capture_output=True,
        text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def join(thread: threading.Thread) -> None:
    """Wait until ``thread`` ends; a failure if it does not."""
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def url(config: Config, scheme: str) -> str:
    return config.inference if scheme == "http" else f"grpc://{config.grpc}"


@pytest.fixture
def client(kind: Kind, server: Running) -> Client | Blocking:
    """Each kind of client of the suite's server."""
    return kind.make(url(server.config, kind.scheme))


@dataclass(frozen=True)
class Strict:
    """A server of the classifier alone that requires a token and queues one request."""

    config: Config
    run: RunFolder

    @property
    def key(self) -> str:
        """The token."""
        return str(json.loads(self.run.key_file.read_text())["inference"]["key"])


@pytest.fixture(scope="session")
def strict(
    tmp_path_factory: pytest.TempPathFactory,
    model_store: Path,
    serving: Command,
    make_config: MakeConfig,
) -> Iterator[Strict]:
    folder = tmp_path_factory.mktemp("strict")
    path = make_config(
        folder, model_store, load_models=f"{DEFAULTS['classify']}.mar", job_queue_size="1",
        disable_token_authorization="false",
    )  # fmt: skip
    options = ("--config", path, "--run-dir", folder / "run")
    started = serving("start", *options)
    assert started.returncode == 0, started.stdout + started.stderr
    yield Strict(Config.read(path), RunFolder(folder / "run"))
    assert serving("stop", *options).returncode == 0


@dataclass(frozen=True)
class Secure:
    """The suite's server behind TLS: URLs by scheme (http, grpc), the authority's file."""

    urls: dict[str, str]
    ca: Path


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory, server: Running) -> Iterator[Secure]:
    """A proxy that terminates TLS and forwards the bytes."""
    folder = tmp_path_factory.mktemp("tls")
    ca, key = folder / "ca.pem", folder / "key.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names,
         "-keyout", str(key), "-out", str(ca)],
        check=True, capture_output=True, timeout=LIMIT_S,
    )  # fmt: skip
    behind = {"http": server.config.inference.removeprefix("http://"), "grpc": server.config.grpc}
    with ExitStack() as stack:
        urls = {}
        for scheme, address in behind.items():
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(ca, key)
            tls.set_alpn_protocols(["h2" if scheme == "grpc" else "http/1.1"])
            port = stack.enter_context(forwarder(address, tls)).port
            urls[scheme] = f"{scheme}s://127.0.0.1:{port}"
        yield Secure(urls, ca)


class Answering:
    """An HTTP server at ``url`` that gives the same answer to every request.

    ``asked`` has the headers and ``paths`` the path of each request. Header values are sent as they
    are, including bytes that are not ASCII.
    """

    def __init__(
        self, status: int, headers: dict[str, bytes], body: bytes, host: str = "127.0.0.1"
    ) -> None:
        asked: list[Message] = []
        paths: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            timeout = LIMIT_S

            def do_POST(self) -> None:  # http.server's name
                asked.append(self.headers)
                paths.append(self.path)
                self.rfile.read(int(self.headers.get("content-length", 0)))
                lines = [f"HTTP/1.1 {status} Any".encode(), b"content-length: %d" % len(body)]
                lines += [name.encode() + b": " + value for name, value in headers.items()]
                self.wfile.write(b"\r\n".join([*lines, b"connection: close", b"", body]))

            do_GET = do_POST  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.asked = asked
        self.paths = paths
        self.url = f"http://{host}:{self._server.server_port}"

    @classmethod
    @contextmanager
    def started(
        cls,
        status: int = 200,
        headers: dict[str, bytes] | None = None,
        body: bytes = b"",
        host: str = "127.0.0.1",
    ) -> Iterator[Answering]:
        """``host`` is the name of this machine in ``url``."""
        server = cls(status, headers or {}, body, host)
        thread = threading.Thread(target=server._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server._server.shutdown()
            server._server.server_close()
            join(thread)


class Forwarder:
    """Forwards each connection at ``port`` to ``address``, in both directions."""

    def __init__(self, address: str) -> None:
        self._host, port = address.split(":")
        self._behind = int(port)
        self.port = 0
        self.accepted = 0  # connections so far

    async def listen(self, tls: ssl.SSLContext | None) -> asyncio.Server:
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = listener.sockets[0].getsockname()[1]
        return listener

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        behind_reader, behind_writer = await asyncio.open_connection(self._host, self._behind)
        await asyncio.gather(_pipe(reader, behind_writer), _pipe(behind_reader, writer))


@contextmanager
def forwarder(address: str, tls: ssl.SSLContext | None = None) -> Iterator[Forwarder]:
    """A Forwarder that runs in its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = Forwarder(address)
    listener = asyncio.run_coroutine_threadsafe(running.listen(tls), loop).result(10)
    yield running
    loop.call_soon_threadsafe(listener.close)
    loop.call_soon_threadsafe(loop.stop)
    join(thread)
    loop.run_until_complete(_cancel_rest())
    loop.close()


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass  # the client disconnected
    finally:
        sink.close()


async def _cancel_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
