"""REST: the picture as the raw body, options as headers."""

from __future__ import annotations

import io
import os
import ssl
from collections.abc import Mapping
from urllib.request import getproxies, proxy_bypass

import aiohttp
import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from vision_client.answers import Reply
from vision_client.endpoint import Access, Endpoint
from vision_client.errors import ConnectionFailed, TimedOut, from_http

CONNECT_TIMEOUT_S = 10.0
CONNECTIONS = 64


class Rest:
    """Over ``requests``, connections kept; for use from several threads."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._access = access
        self._http = _Session()
        self._http.trust_env = not endpoint.is_loopback
        self._http.mount(str(endpoint), HTTPAdapter(pool_maxsize=CONNECTIONS))
        self._http.auth = _Authorization(access)
        if access.ca is not None:
            access.authority()  # a file that is not there is told now, in Python's words
            self._http.verify = str(access.ca)

    def send(self, model: str, picture: bytes, options: Mapping[str, str], timeout: float) -> Reply:
        try:
            response = self._http.post(
                self._endpoint.prediction(model),
                data=picture,
                headers=_headers(options),
                timeout=(min(CONNECT_TIMEOUT_S, timeout), timeout),
            )
        except requests.Timeout as error:
            raise _too_late(self._endpoint, error) from error
        except requests.RequestException as error:
            raise _unreachable(self._endpoint, error) from error
        if response.status_code != requests.codes.ok:
            raise from_http(response.status_code, response.headers, response.content)
        return _reply(response.content, response.headers)

    def close(self) -> None:
        self._http.close()


class AsyncRest:
    """Over ``aiohttp``; made and used within one event loop."""

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
                data=io.BytesIO(picture),  # sent in pieces: a large body would hold the loop
                headers=_headers(options) | self._access.authorization(),
                allow_redirects=False,
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT_S),
            ) as response:
                body = await response.read()
        except TimeoutError as error:
            raise _too_late(self._endpoint, error) from error
        except aiohttp.ClientError as error:
            raise _unreachable(self._endpoint, error) from error
        if response.status != requests.codes.ok:
            raise from_http(response.status, response.headers, body)
        return _reply(body, response.headers)

    async def close(self) -> None:
        await self._http.close()


class _Session(requests.Session):
    """Follows no redirects, which would take the token and the picture to another server."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


class _Authorization(AuthBase):
    """The token; an authorization of its own also keeps requests from taking one from ~/.netrc."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._access.authorization())
        return request


def _proxy(endpoint: Endpoint) -> str | None:
    """The shell's proxy for ``endpoint``; aiohttp's ``trust_env`` would read ~/.netrc, too."""
    if endpoint.is_loopback or proxy_bypass(endpoint.address):
        return None
    return getproxies().get(endpoint.scheme)


def _headers(options: Mapping[str, str]) -> dict[str, str]:
    named = {f"x-{name.replace('_', '-')}": value for name, value in options.items()}
    return {"content-type": "application/octet-stream", **named}


def _reply(body: bytes, headers: Mapping[str, str]) -> Reply:
    return Reply(body, headers.get("x-model-weights"), headers.get("x-request-id"))


def _too_late(endpoint: Endpoint, error: Exception) -> TimedOut | ConnectionFailed:
    connecting = requests.ConnectTimeout | aiohttp.ConnectionTimeoutError
    if isinstance(error, connecting):
        return ConnectionFailed(f"no connection to {endpoint} within {CONNECT_TIMEOUT_S:g} s")
    return TimedOut(f"{endpoint} gave no answer in time")


def _unreachable(endpoint: Endpoint, error: Exception) -> ConnectionFailed:
    return ConnectionFailed(f"no connection to {endpoint}: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """The innermost cause, which is the one that says something: "Connection refused"."""
    while error.__context__ is not None:
        error = error.__context__
    # aiohttp's text is "Connect call failed", where its errno says why.
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)
    return str(error).strip().partition("\n")[0] or type(error).__name__
