"""Photographs at ``http://`` and ``https://`` addresses, downloaded by this machine.

The server's token is not sent with them, nor a password of ~/.netrc.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from importlib.metadata import version
from urllib.parse import SplitResult, urljoin, urlsplit

import requests

from vision_client.endpoint import Endpoint
from vision_client.rest import connection_failed

MAX_BYTES = 16 << 20  # the server's limit
LIMIT_S = 60.0  # for the whole download
SILENCE_S = 10.0  # to connect, and between two parts of the data
MAX_REDIRECTS = 5
_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}
# The content types of files that a web server does not know; the vision server checks the content.
_BINARY = {"", "application/octet-stream", "binary/octet-stream"}


class DownloadFailed(OSError):
    """A photograph that was not downloaded; the message says why, and what to do."""


def is_address(text: str) -> bool:
    """Whether ``text`` is a URL of any scheme, not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def file_name(url: str) -> str:
    """The last part of the path, as it is in the URL, or the host; of an invalid URL, too."""
    host, _, path = re.split(r"[?#]", url.partition("://")[2])[0].partition("/")
    name = path.rpartition("/")[2]
    return host if name in ("", ".", "..") else name


def long_file_name(url: str) -> str:
    """The same with the query, which distinguishes the photographs of some servers."""
    query = url.partition("#")[0].partition("?")[2]
    return file_name(url) + re.sub(r"[^\w.=&%+~,-]", "_", f"?{query}" if query else "")


def download(url: str) -> bytes:
    """The picture at ``url``. DownloadFailed if there is none within the limits."""
    # A thread, because looking up a name and reading headers have no limit of their own.
    result: Future[bytes] = Future()
    responses: list[requests.Response] = []
    thread = threading.Thread(target=_into, args=(result, url, responses), daemon=True)
    thread.start()
    try:
        return result.result(LIMIT_S)
    except TimeoutError as error:
        for response in responses[-1:]:
            _hang_up(response)
        raise DownloadFailed(f"not downloaded within {LIMIT_S:g} s") from error


def _hang_up(response: requests.Response) -> None:
    """End the thread that reads it: closing the connection does not interrupt a read."""
    with (
        suppress(OSError, ValueError),  # it has ended
        socket.socket(fileno=os.dup(response.raw.fileno())) as connection,
    ):
        connection.shutdown(socket.SHUT_RDWR)


def _into(result: Future[bytes], url: str, responses: list[requests.Response]) -> None:
    try:
        result.set_result(_download(url, responses))
    except Exception as error:  # noqa: BLE001 - raised again by the caller
        result.set_exception(error)


class _Session(requests.Session):
    """Follows no redirect by itself: it would read the whole body of each, whatever its size."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


def _download(url: str, responses: list[requests.Response]) -> bytes:
    """The response that is being read is the last of ``responses``."""
    deadline = time.monotonic() + LIMIT_S
    with _Session() as session:
        session.auth = _no_auth
        session.headers.update(
            {
                "user-agent": f"vision-client/{version('vision-client')}",
                "accept": "image/*",
                "accept-encoding": "identity",
            }
        )
        for _ in range(MAX_REDIRECTS + 1):
            parts = _checked(url)
            try:
                with session.get(url, stream=True, timeout=SILENCE_S) as response:
                    responses.append(response)
                    if not response.is_redirect:
                        return _content(response, deadline)
                    target = requests.Session.get_redirect_target(session, response)
            except requests.Timeout as error:
                raise DownloadFailed(f"{parts.netloc} sent nothing for {SILENCE_S:g} s") from error
            except requests.ConnectionError as error:
                port = parts.port or _PORTS[parts.scheme]
                host = Endpoint(parts.scheme, parts.hostname or "", port, "")
                raise DownloadFailed(str(connection_failed(host, error))) from error
            except requests.RequestException as error:
                raise DownloadFailed(str(error)) from error
            _check_redirect(parts, url := urljoin(url, target or ""))
    raise DownloadFailed(f"more than {MAX_REDIRECTS} redirects")


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Setting ``auth`` stops requests from reading ~/.netrc."""
    return request


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # ValueError if it is not a number
    except ValueError as error:
        raise DownloadFailed(str(error)) from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise DownloadFailed(f"{url} is not an http:// or https:// address")
    if parts.username is not None:
        raise DownloadFailed(
            "an address with a password is not downloaded, because results contain the address"
        )
    return parts


def _check_redirect(start: SplitResult, url: str) -> None:
    """DownloadFailed if a public server sends this machine into its own network, or off TLS.

    The vision server would get what only this machine may read.
    """
    end = _checked(url)
    if start.scheme == "https" and end.scheme == "http":
        raise DownloadFailed(f"redirected from https to {url}; give that address if it is meant")
    if _is_public(start.hostname or "") and not _is_public(end.hostname or ""):
        raise DownloadFailed(
            f"a public address redirects to {url}, which is not; give that address if it is meant"
        )


def _is_public(host: str) -> bool:
    """Whether all addresses of ``host`` are; True if it has none, as behind a proxy."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return True
    return all(ipaddress.ip_address(address).is_global for *_, (address, *_) in found)


def _content(response: requests.Response, deadline: float) -> bytes:
    """The body. DownloadFailed if it is not a picture or exceeds a limit."""
    if response.status_code != requests.codes.ok:
        raise DownloadFailed(f"{response.status_code} {response.reason}")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _BINARY and not kind.startswith("image/"):
        raise DownloadFailed(f"{kind}, not a picture; give the address of the picture itself")
    data = bytearray()
    try:
        for chunk in response.iter_content(_CHUNK):
            data += chunk
            if len(data) > MAX_BYTES:
                raise DownloadFailed(f"more than {MAX_BYTES >> 20} MiB, the server's limit")
            if time.monotonic() > deadline:
                raise DownloadFailed(f"not downloaded within {LIMIT_S:g} s")
    except requests.RequestException as error:
        raise DownloadFailed(f"the connection ended after {len(data)} bytes: {error}") from error
    if not data:
        raise DownloadFailed("the answer is empty")
    return bytes(data)
