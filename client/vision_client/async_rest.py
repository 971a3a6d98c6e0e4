"""REST on an event loop."""

from __future__ import annotations

import io
import ssl
from collections.abc import Mapping
from urllib.request import getproxies, proxy_bypass

import aiohttp

from vision_client.answers import Reply
from vision_client.endpoint import Access, Endpoint
from vision_client.rest import (
    CONNECT_TIMEOUT_S,
    CONNECTIONS,
    connect_timed_out,
    connection_failed,
    request_headers,
    timed_out,
    to_reply,
)


class AsyncRest:
    """An ``aiohttp`` session; create and use it within one event loop."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._access = access
        authority = access.authority()
        self._proxy = _proxy(endpoint)
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=tls),
        )

    async def send(
        self, model: str, picture: bytes, options: Mapping[str, str], timeout: float
    ) -> Reply:
        try:
            async with self._http.post(
                self._endpoint.prediction(model),
                data=io.BytesIO(picture),  # sent in chunks: a large body would block the loop
                headers=request_headers(options) | self._access.authorization(),
                allow_redirects=False,
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT_S),
            ) as response:
                body = await response.read()
        except aiohttp.ConnectionTimeoutError as error:
            raise connect_timed_out(self._endpoint) from error
        except TimeoutError as error:
            raise timed_out(self._endpoint) from error
        except aiohttp.ClientError as error:
            raise connection_failed(self._endpoint, error) from error
        return to_reply(response.status, response.headers, body)

    async def close(self) -> None:
        await self._http.close()


def _proxy(endpoint: Endpoint) -> str | None:
    """The proxy from the environment; aiohttp's ``trust_env`` would read ~/.netrc as well."""
    if endpoint.is_loopback or proxy_bypass(endpoint.address):
        return None
    return getproxies().get(endpoint.scheme)
