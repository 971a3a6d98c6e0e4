"""REST on an event loop."""

from __future__ import annotations

import io
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp

from vision_client.answers import Reply
from vision_client.endpoint import Access, Endpoint
from vision_client.models import Model, with_readiness
from vision_client.rest import (
    CONNECT_TIMEOUT_S,
    CONNECTIONS,
    MODELS,
    READINESS,
    connect_timed_out,
    connection_failed,
    request_headers,
    timed_out,
    to_models,
    to_reply,
    to_report,
)


class AsyncRest:
    """An ``aiohttp`` session; create and use it within one event loop."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._access = access
        self._proxy = _proxy(endpoint)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=_context(access)),
        )

    async def send(
        self, model: str, picture: bytes, options: Mapping[str, str], timeout: float
    ) -> Reply:
        url, headers = self._endpoint.prediction(model), request_headers(options, timeout)
        data = io.BytesIO(picture)  # sent in pieces: one large write would block the loop
        return to_reply(*await self._request("POST", url, timeout, headers, data=data))

    async def models(self, timeout: float) -> tuple[Model, ...]:
        return to_models(*await self._request("GET", f"{self._endpoint}{MODELS}", timeout))

    async def status(self, names: Sequence[str], timeout: float) -> tuple[Model, ...]:
        models = await self.models(timeout)
        answer = await self._request("GET", f"{self._endpoint}{READINESS}", timeout)
        return with_readiness(models, to_report(*answer), names)

    async def _request(
        self,
        method: str,
        url: str,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body."""
        try:
            async with self._http.request(
                method,
                url,
                headers={**(headers or {}), **self._access.authorization()},
                allow_redirects=False,
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT_S),
                **content,
            ) as response:
                return response.status, response.headers, await response.read()
        except aiohttp.ConnectionTimeoutError as error:
            raise connect_timed_out(self._endpoint) from error
        except TimeoutError as error:
            raise timed_out(self._endpoint) from error
        except aiohttp.ClientError as error:
            raise connection_failed(self._endpoint, error) from error

    async def close(self) -> None:
        await self._http.close()


def _context(access: Access) -> ssl.SSLContext:
    authority = access.authority()
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if access.cert is not None:
        access.certificate()  # raises a plain OSError if a file cannot be read
        context.load_cert_chain(*access.cert)
    return context


def _proxy(endpoint: Endpoint) -> str | None:
    """The proxy from the environment; aiohttp's ``trust_env`` would read ~/.netrc as well."""
    if endpoint.is_loopback or proxy_bypass(endpoint.address):
        return None
    return getproxies().get(endpoint.scheme)
