"""Client and AsyncClient: the two things that the server does, as two methods."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self, TypeAlias

from vision_client.answers import (
    Classification,
    Reply,
    Translation,
    classification,
    translation,
)
from vision_client.endpoint import Access, Endpoint, Token, warn_of_plain_token
from vision_client.errors import ServerError
from vision_client.pictures import Picture, encoded
from vision_client.rest import AsyncRest, Rest
from vision_client.rpc import AsyncRpc, Rpc

Format: TypeAlias = Literal["png", "jpeg", "webp"]

SERVER = "http://127.0.0.1:8080"
# A little more than the server's own limit for a batch of classifications.
TIMEOUT_S = 130.0
LONGEST_TIMEOUT_S = 86_400.0  # a day; sockets and gRPC cannot hold many times that
RETRIES = 3
BUSY = 503


class Client:
    """A server's two networks; connections are kept, threads may share one client.

    ``server`` is ``http://``, ``https://``, ``grpc://`` or ``grpcs://`` with host, port and, over
    REST, a path that a proxy may want. ``token`` is sent as a bearer token; a function is asked
    anew for each request, as TorchServe's tokens end after an hour. ``ca`` is a PEM file of the
    authority to trust instead of the machine's. ``timeout`` is in seconds, above 0 and at most
    86400, and for each try; over REST it is the longest silence. A server that is busy (503, and
    nothing else) is asked again up to ``retries`` times, after 1, 2, 4 ... seconds and a little
    more by chance, or after its ``Retry-After`` where that is longer. No pause is longer than
    ``timeout``.

    Calls raise ServerError, ConnectionFailed or TimedOut, all of them VisionError, what ``encoded``
    raises of a picture, and ValueError where no header can hold the token. The constructor raises
    ValueError where ``server`` names none or ``timeout`` is out of range, and issues a UserWarning
    where the token goes to another machine without encryption. Redirects are not followed.
    """

    def __init__(
        self,
        server: str = SERVER,
        *,
        token: Token = None,
        ca: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        self.endpoint = Endpoint.parse(server)
        warn_of_plain_token(self.endpoint, token)
        self._timeout = _checked(timeout)
        self._retries = retries
        self._transport = (Rpc if self.endpoint.is_grpc else Rest)(self.endpoint, Access(token, ca))

    def classify(self, picture: Picture, *, top_k: int | None = None) -> Classification:
        """The ``top_k`` most probable classes of ``picture``, best first; 5 by default."""
        begun = time.monotonic()
        reply = self._ask("resnet101", encoded(picture), _options(top_k=top_k))
        return classification(reply, time.monotonic() - begun)

    def translate(
        self,
        picture: Picture,
        *,
        size: int | None = None,
        format: Format | None = None,
        quality: int | None = None,
    ) -> Translation:
        """``picture`` translated, horse to zebra.

        ``size`` is the shorter side in pixels, 64 to 1024 in multiples of 4 (256), ``quality`` of
        JPEG and WebP 1 to 95 (90); in brackets the server's defaults, with PNG as the format.
        """
        begun = time.monotonic()
        options = _options(size=size, format=format, quality=quality)
        reply = self._ask("cyclegan", encoded(picture), options)
        return translation(reply, time.monotonic() - begun)

    def _ask(self, model: str, picture: bytes, options: dict[str, str]) -> Reply:
        for pause in _pauses(self._retries):
            try:
                return self._transport.send(model, picture, options, self._timeout)
            except ServerError as error:
                if error.code != BUSY:
                    raise
                time.sleep(min(max(pause, error.retry_after), self._timeout))
        return self._transport.send(model, picture, options, self._timeout)

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


class AsyncClient:
    """Client on an event loop: ``async with AsyncClient() as client: await client.classify(...)``.

    Cancelling a call drops its connection; the server may still be at work on it. Over REST
    ``timeout`` is for the whole of a try.
    """

    def __init__(
        self,
        server: str = SERVER,
        *,
        token: Token = None,
        ca: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        self.endpoint = Endpoint.parse(server)
        warn_of_plain_token(self.endpoint, token)
        self._access = Access(token, ca)
        self._timeout = _checked(timeout)
        self._retries = retries
        # Made at the first call, within the loop that it then belongs to.
        self._transport: AsyncRest | AsyncRpc | None = None

    async def classify(self, picture: Picture, *, top_k: int | None = None) -> Classification:
        """As Client.classify."""
        begun = time.monotonic()
        data = await asyncio.to_thread(encoded, picture)
        reply = await self._ask("resnet101", data, _options(top_k=top_k))
        return classification(reply, time.monotonic() - begun)

    async def translate(
        self,
        picture: Picture,
        *,
        size: int | None = None,
        format: Format | None = None,
        quality: int | None = None,
    ) -> Translation:
        """As Client.translate."""
        begun = time.monotonic()
        data = await asyncio.to_thread(encoded, picture)
        options = _options(size=size, format=format, quality=quality)
        reply = await self._ask("cyclegan", data, options)
        return translation(reply, time.monotonic() - begun)

    async def _ask(self, model: str, picture: bytes, options: dict[str, str]) -> Reply:
        if self._transport is None:
            kind = AsyncRpc if self.endpoint.is_grpc else AsyncRest
            self._transport = kind(self.endpoint, self._access)
        for pause in _pauses(self._retries):
            try:
                return await self._transport.send(model, picture, options, self._timeout)
            except ServerError as error:
                if error.code != BUSY:
                    raise
                await asyncio.sleep(min(max(pause, error.retry_after), self._timeout))
        return await self._transport.send(model, picture, options, self._timeout)

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


def _checked(timeout: float) -> float:
    if not 0 < timeout <= LONGEST_TIMEOUT_S:
        raise ValueError(
            f"timeout must be above 0 and at most {LONGEST_TIMEOUT_S:.0f} s, not {timeout}"
        )
    return timeout


def _pauses(retries: int) -> Iterator[float]:
    """Seconds to wait after each failed try but the last."""
    # By chance, so that clients that were refused together do not come back together.
    # No longer than 2048 s or so: a float cannot hold 2**1024.
    return (2 ** min(i, 11) * random.uniform(1.0, 1.5) for i in range(retries))  # noqa: S311


def _options(**options: int | str | None) -> dict[str, str]:
    return {name: str(value) for name, value in options.items() if value is not None}
