"""Client and AsyncClient: one method per task."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar

from vision_client.answers import Answer, Reply
from vision_client.endpoint import Access, Endpoint, Path, Token, warn_of_plain_token
from vision_client.errors import ServerError
from vision_client.extras import extra
from vision_client.many import JOBS, Pictures, Progress, Result, answers, answers_async
from vision_client.models import Model, classes, default
from vision_client.pictures import Picture, encoded
from vision_client.rest import Rest
from vision_client.tasks.classify import CLASSIFY, Classification
from vision_client.tasks.decoder import PIXEL, Decoder
from vision_client.tasks.embed import EMBED, FORMAT, Embedding
from vision_client.tasks.translate import TRANSLATE, Format, Translation, server_format

SERVER = "http://127.0.0.1:8080"
# A little more than the server's own limit for a batch of classifications.
TIMEOUT_S = 130.0
LONGEST_TIMEOUT_S = 86_400.0  # a day; sockets and gRPC overflow at many times that
RETRIES = 3
BUSY = {429, 503}
UNKNOWN_MODEL = 404

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


class _Transport(Protocol):
    def send(
        self, model: str, picture: bytes, options: dict[str, str], timeout: float
    ) -> Reply: ...
    def models(self, timeout: float) -> tuple[Model, ...]: ...
    def status(self, names: Sequence[str], timeout: float) -> tuple[Model, ...]: ...
    def close(self) -> None: ...


class _AsyncTransport(Protocol):
    async def send(
        self, model: str, picture: bytes, options: dict[str, str], timeout: float
    ) -> Reply: ...
    async def models(self, timeout: float) -> tuple[Model, ...]: ...
    async def status(self, names: Sequence[str], timeout: float) -> tuple[Model, ...]: ...
    async def close(self) -> None: ...


class _Base:
    """What both clients are constructed with."""

    def __init__(
        self,
        server: str = SERVER,
        *,
        token: Token = None,
        ca: Path | None = None,
        cert: tuple[Path, Path] | None = None,
        timeout: float = TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        if not 0 < timeout <= LONGEST_TIMEOUT_S:
            raise ValueError(
                f"timeout must be above 0 and at most {LONGEST_TIMEOUT_S:.0f} s, not {timeout}"
            )
        self.endpoint = Endpoint.parse(server)
        warn_of_plain_token(self.endpoint, token)
        self._access = Access(token, ca, cert)
        self._timeout = timeout
        self._retries = retries
        self._defaults: dict[str, str] = {}  # by task; asked of the server when first needed
        self._prepare()

    def _prepare(self) -> None:
        """Import, and if possible create, the transport."""
        raise NotImplementedError

    def _pause(self, planned: float, error: ServerError) -> float:
        """Seconds to wait before the next attempt; raises ``error`` if there is no use in one."""
        if error.code not in BUSY:
            raise error
        return min(max(planned, error.retry_after), self._timeout)


class Client(_Base):
    """A client of one server. It keeps its connections and may be shared by threads.

    ``server`` is a URL ``http://``, ``https://``, ``grpc://`` or ``grpcs://`` with host, port and,
    for REST, the path prefix of a proxy. ``token`` is an API key, sent as a bearer token; a
    function is called for each request, so that keys may change. ``ca`` is a PEM file of the
    certificate authority to trust instead of the machine's; ``cert`` are the PEM files of a client
    certificate and its private key. ``timeout`` is in seconds, above 0 and at most 86400, and
    applies to each attempt. The client sends it to the server, which drops a request that still
    waits by then; over REST the client itself limits only the time without any data. If the server
    is busy (429 or 503, and no other error), up to ``retries`` more attempts follow, after 1, 2, 4
    ... seconds plus random jitter, or after ``retry-after`` if that is longer. No pause is longer
    than ``timeout``.

    Over REST the default model of a task is the first one that the server lists, looked up when it
    is first needed, and again when the server no longer has it. Over gRPC the server lists none, so
    requests have to name one.

    Calls raise ServerError, ConnectionFailed or TimedOut, all of them VisionError; the errors of
    ``encoded`` if the picture cannot be read; and ValueError if the token cannot be sent as a
    header, if no model is named over gRPC, or if over REST it is "", "." or "..". The constructor
    raises ValueError if ``server`` is not such a URL or ``timeout`` is out of range, MissingExtra
    if gRPC is not installed, and issues a UserWarning if the token would go to another machine
    unencrypted. A file of ``ca`` or ``cert`` that cannot be read raises OSError. Redirects are not
    followed.
    """

    def _prepare(self) -> None:
        make: Callable[[Endpoint, Access], _Transport] = Rest
        if self.endpoint.is_grpc:
            with extra("grpc", "gRPC"):
                from vision_client.rpc import Rpc
            make = Rpc
        self._transport = make(self.endpoint, self._access)

    def classify(
        self, picture: Picture, *, model: str | None = None, top_k: int | None = None
    ) -> Classification:
        """The ``top_k`` most probable classes of ``picture``, best first; 5 by default."""
        return self.ask(CLASSIFY, picture, model, top_k=top_k)

    def embed(
        self, picture: Picture, *, model: str | None = None, normalize: bool = False
    ) -> Embedding:
        """The features of ``picture`` before the classifier; of length 1 with ``normalize``."""
        return self.ask(EMBED, picture, model, format=FORMAT, normalize=int(normalize))

    def translate(
        self,
        picture: Picture,
        *,
        model: str | None = None,
        size: int | None = None,
        format: Format | None = None,
        quality: int | None = None,
    ) -> Translation:
        """``picture`` as ``model`` translates it.

        ``size`` is the shorter side in pixels. ``quality`` applies to an answer in the ``format``
        jpeg or webp. The ranges are in ``vision_client.tasks.translate``.
        """
        format = server_format(format)
        return self.ask(TRANSLATE, picture, model, size=size, format=format, quality=quality)

    def classify_many(
        self,
        pictures: Pictures,
        *,
        model: str | None = None,
        top_k: int | None = None,
        jobs: int = JOBS,
        progress: Progress | None = None,
    ) -> Generator[Result[Classification]]:
        """A Result of each picture, in order, of ``jobs`` requests at once.

        ``pictures`` is a folder, which is searched recursively, or an iterable, which another
        thread reads as requests are sent. An error of one picture is in its Result and does not end
        the others; one of the iterable is raised after the results of the pictures before it.
        ``progress`` is called after each with the number of results and of pictures, None if that
        is unknown. Raises OSError if the folder cannot be read.
        """
        return answers(
            lambda data: self.classify(data, model=model, top_k=top_k), pictures, jobs, progress
        )

    def translate_many(
        self,
        pictures: Pictures,
        *,
        model: str | None = None,
        size: int | None = None,
        format: Format | None = None,
        quality: int | None = None,
        jobs: int = JOBS,
        progress: Progress | None = None,
    ) -> Generator[Result[Translation]]:
        """As classify_many, with the options of translate."""
        return answers(
            lambda data: self.translate(
                data, model=model, size=size, format=format, quality=quality
            ),
            pictures,
            jobs,
            progress,
        )

    def ask(
        self,
        decoder: Decoder[A],
        picture: Picture,
        model: str | None = None,
        **options: int | str | None,
    ) -> A:
        """Send ``picture`` to ``model``, by default that of the task; options of None are not sent.

        ``classify``, ``embed`` and ``translate`` are this with a decoder.
        """
        start = time.monotonic()
        data, texts = encoded(picture), _as_text(options)
        if model is None:
            reply = self._send_to_default(decoder.task, data, texts)
        else:
            reply = self._send(model, data, texts)
        return decoder.decode(reply, time.monotonic() - start)

    def models(self) -> tuple[Model, ...]:
        """The models of the server. Raises ValueError over gRPC, which does not list them."""
        return self._attempt(lambda: self._transport.models(self._timeout))

    def status(self, *names: str) -> tuple[Model, ...]:
        """Which models are ready, and why others are not: ``names``, or all models of the server.

        Over gRPC without ``names``, the result is one entry for the server, with an empty name.
        """
        return self._attempt(lambda: self._transport.status(names, self._timeout))

    def labels(self, model: str | None = None) -> tuple[str, ...]:
        """The names of all classes of ``model``, in the order of their indices.

        They come with an answer to a picture of one pixel. Raises ValueError if ``model`` does not
        classify, and over gRPC, where the server does not list its models.
        """
        models = self.models()
        name = model or default(models, CLASSIFY.task)
        answer = self.classify(PIXEL, model=name, top_k=classes(models, name))
        return answer.labels

    def _send_to_default(self, task: str, picture: bytes, options: dict[str, str]) -> Reply:
        if model := self._defaults.get(task):
            try:
                return self._send(model, picture, options)
            except ServerError as error:
                if error.code != UNKNOWN_MODEL:
                    raise
        model = self._defaults[task] = default(self.models(), task)
        return self._send(model, picture, options)

    def _send(self, model: str, picture: bytes, options: dict[str, str]) -> Reply:
        return self._attempt(lambda: self._transport.send(model, picture, options, self._timeout))

    def _attempt(self, call: Callable[[], T]) -> T:
        for pause in _pauses(self._retries):
            try:
                return call()
            except ServerError as error:
                time.sleep(self._pause(pause, error))
        return call()

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(_Base):
    """Client on an event loop: ``async with AsyncClient() as client: await client.classify(...)``.

    Cancelling a call drops its connection; the server may still be working on it. Over REST
    ``timeout`` limits the whole attempt, and the ``async`` extra is needed.
    """

    def _prepare(self) -> None:
        if self.endpoint.is_grpc:
            with extra("grpc", "gRPC"):
                from vision_client.rpc import AsyncRpc
            self._make_transport: Callable[[Endpoint, Access], _AsyncTransport] = AsyncRpc
        else:
            with extra("async", "AsyncClient over REST"):
                from vision_client.async_rest import AsyncRest
            self._make_transport = AsyncRest
        # Created by the first call, because it belongs to the event loop that runs then.
        self._transport: _AsyncTransport | None = None

    async def classify(
        self, picture: Picture, *, model: str | None = None, top_k: int | None = None
    ) -> Classification:
        """As Client.classify."""
        return await self.ask(CLASSIFY, picture, model, top_k=top_k)

    async def embed(
        self, picture: Picture, *, model: str | None = None, normalize: bool = False
    ) -> Embedding:
        """As Client.embed."""
        return await self.ask(EMBED, picture, model, format=FORMAT, normalize=int(normalize))

    async def translate(
        self,
        picture: Picture,
        *,
        model: str | None = None,
        size: int | None = None,
        format: Format | None = None,
        quality: int | None = None,
    ) -> Translation:
        """As Client.translate."""
        format = server_format(format)
        return await self.ask(TRANSLATE, picture, model, size=size, format=format, quality=quality)

    def classify_many(
        self,
        pictures: Pictures,
        *,
        model: str | None = None,
        top_k: int | None = None,
        jobs: int = JOBS,
        progress: Progress | None = None,
    ) -> AsyncGenerator[Result[Classification]]:
        """As Client.classify_many: ``async for result in client.classify_many(...)``."""
        return answers_async(
            lambda data: self.classify(data, model=model, top_k=top_k), pictures, jobs, progress
        )

    def translate_many(
        self,
        pictures: Pictures,
        *,
        model: str | None = None,
        size: int | None = None,
        format: Format | None = None,
        quality: int | None = None,
        jobs: int = JOBS,
        progress: Progress | None = None,
    ) -> AsyncGenerator[Result[Translation]]:
        """As Client.translate_many."""
        return answers_async(
            lambda data: self.translate(
                data, model=model, size=size, format=format, quality=quality
            ),
            pictures,
            jobs,
            progress,
        )

    async def ask(
        self,
        decoder: Decoder[A],
        picture: Picture,
        model: str | None = None,
        **options: int | str | None,
    ) -> A:
        """As Client.ask."""
        start = time.monotonic()
        data, texts = await asyncio.to_thread(encoded, picture), _as_text(options)
        if model is None:
            reply = await self._send_to_default(decoder.task, data, texts)
        else:
            reply = await self._send(model, data, texts)
        return decoder.decode(reply, time.monotonic() - start)

    async def models(self) -> tuple[Model, ...]:
        """As Client.models."""
        return await self._attempt(lambda transport: transport.models(self._timeout))

    async def status(self, *names: str) -> tuple[Model, ...]:
        """As Client.status."""
        return await self._attempt(lambda transport: transport.status(names, self._timeout))

    async def labels(self, model: str | None = None) -> tuple[str, ...]:
        """As Client.labels."""
        models = await self.models()
        name = model or default(models, CLASSIFY.task)
        answer = await self.classify(PIXEL, model=name, top_k=classes(models, name))
        return answer.labels

    async def _send_to_default(self, task: str, picture: bytes, options: dict[str, str]) -> Reply:
        if model := self._defaults.get(task):
            try:
                return await self._send(model, picture, options)
            except ServerError as error:
                if error.code != UNKNOWN_MODEL:
                    raise
        model = self._defaults[task] = default(await self.models(), task)
        return await self._send(model, picture, options)

    async def _send(self, model: str, picture: bytes, options: dict[str, str]) -> Reply:
        return await self._attempt(
            lambda transport: transport.send(model, picture, options, self._timeout)
        )

    async def _attempt(self, call: Callable[[_AsyncTransport], Awaitable[T]]) -> T:
        if self._transport is None:
            self._transport = self._make_transport(self.endpoint, self._access)
        for pause in _pauses(self._retries):
            try:
                return await call(self._transport)
            except ServerError as error:
                await asyncio.sleep(self._pause(pause, error))
        return await call(self._transport)

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def _pauses(retries: int) -> Iterator[float]:
    """Seconds to wait after each failed attempt but the last."""
    # Random, so that clients that were refused together do not return together.
    # At most about 2048 s: a float cannot hold 2**1024.
    return (2 ** min(i, 11) * random.uniform(1.0, 1.5) for i in range(retries))  # noqa: S311


def _as_text(options: dict[str, int | str | None]) -> dict[str, str]:
    return {name: str(value) for name, value in options.items() if value is not None}
