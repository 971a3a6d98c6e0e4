"""The four kinds of client behind one interface, and servers with special behaviour."""

from __future__ import annotations

import asyncio
import io
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from serving.config import Config
from tests.running import Running
from tests.standin import LIMIT_S
from vision_client import AsyncClient, Classification, Client, Model, Result, Translation
from vision_client.cli.app import app

T = TypeVar("T")
VISION = str(Path(sys.executable).with_name("vision"))
KINDS = [(scheme, kind) for scheme in ("http", "grpc") for kind in (Client, AsyncClient)]

# Restrict the fixture ``kind`` to one transport.
OVER_HTTP, OVER_GRPC = (
    pytest.mark.parametrize("kind", kinds, indirect=True, ids=lambda param: param[1].__name__)
    for kinds in (KINDS[:2], KINDS[2:])
)

PREDICTIONS = b'{"predictions": [{"class_id": 1, "label": "cat", "probability": 0.5}]}'


async def _all(items: AsyncIterable[T]) -> list[T]:
    return [item async for item in items]


class Blocking:
    """An AsyncClient with its own event loop and the interface of Client."""

    def __init__(self, server: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(server, **options)

    def classify(self, *arguments: Any, **options: Any) -> Classification:
        return self._runner.run(self._client.classify(*arguments, **options))

    def translate(self, *arguments: Any, **options: Any) -> Translation:
        return self._runner.run(self._client.translate(*arguments, **options))

    def classify_many(self, *arguments: Any, **options: Any) -> list[Result[Classification]]:
        return self._runner.run(_all(self._client.classify_many(*arguments, **options)))

    def translate_many(self, *arguments: Any, **options: Any) -> list[Result[Translation]]:
        return self._runner.run(_all(self._client.translate_many(*arguments, **options)))

    def models(self) -> tuple[Model, ...]:
        return self._runner.run(self._client.models())

    def labels(self, model: str | None = None) -> tuple[str, ...]:
        return self._runner.run(self._client.labels(model))

    def status(self, *names: str) -> tuple[Model, ...]:
        return self._runner.run(self._client.status(*names))

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


@dataclass(frozen=True)
class Ended:
    exit_code: int
    stdout: str
    stderr: str


def invoke(*arguments: object) -> Ended:
    """Run the command in this process, as in a pipe."""
    code, out, err = 0, io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            app([str(argument) for argument in arguments], prog_name="vision")
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


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
class Authority:
    """The PEM files of a certificate that is its own authority, and of its key."""

    ca: Path
    key: Path

    def context(self, scheme: str) -> ssl.SSLContext:
        """A server's side of TLS for ``http`` or ``grpc``."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.ca, self.key)
        tls.set_alpn_protocols(["h2" if scheme == "grpc" else "http/1.1"])
        return tls


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("tls")
    ca, key = folder / "ca.pem", folder / "key.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names,
         "-keyout", str(key), "-out", str(ca)],
        check=True, capture_output=True, timeout=LIMIT_S,
    )  # fmt: skip
    return Authority(ca, key)


@pytest.fixture(scope="session")
def secure(authority: Authority, server: Running) -> Iterator[dict[str, str]]:
    """URLs by scheme of a proxy before the suite's server, which terminates TLS."""
    behind = {"http": server.config.inference.removeprefix("http://"), "grpc": server.config.grpc}
    with ExitStack() as stack:
        urls = {}
        for scheme, address in behind.items():
            port = stack.enter_context(forwarder(address, authority.context(scheme))).port
            urls[scheme] = f"{scheme}s://127.0.0.1:{port}"
        yield urls


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
        try:
            await asyncio.gather(_pipe(reader, behind_writer), _pipe(behind_reader, writer))
        except asyncio.CancelledError:  # a TLS connection would wait for its client to close it
            writer.transport.abort()
            behind_writer.transport.abort()
            raise


@contextmanager
def forwarder(address: str, tls: ssl.SSLContext | None = None) -> Iterator[Forwarder]:
    """A Forwarder that runs in its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = Forwarder(address)
    listener = asyncio.run_coroutine_threadsafe(running.listen(tls), loop).result(10)
    try:
        yield running
    finally:
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
    await asyncio.sleep(0.1)  # the sockets of refused handshakes are closed meanwhile
