"""REST: the picture is the raw body, the options are headers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from vision_client.answers import Reply
from vision_client.endpoint import Access, Endpoint
from vision_client.errors import ConnectionFailed, ServerError, TimedOut, from_http, parse_error
from vision_client.models import Model, listed, with_readiness

CONNECT_TIMEOUT_S = 10.0
CONNECTIONS = 64
MODELS = "/models"
READINESS = "/readyz"


class Rest:
    """A ``requests`` session, which keeps its connections and may be shared by threads."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._http = _Session()
        self._http.trust_env = not endpoint.is_loopback
        self._http.mount(str(endpoint), HTTPAdapter(pool_maxsize=CONNECTIONS))
        self._http.auth = _Authorization(access)
        if access.ca is not None:
            access.authority()  # raises a plain OSError now if the file cannot be read
            self._http.verify = str(access.ca)
        if access.cert is not None:
            access.certificate()
            certificate, key = access.cert
            self._http.cert = str(certificate), str(key)

    def send(self, model: str, picture: bytes, options: Mapping[str, str], timeout: float) -> Reply:
        url, headers = self._endpoint.prediction(model), request_headers(options, timeout)
        return to_reply(*self._request("POST", url, timeout, headers=headers, data=picture))

    def models(self, timeout: float) -> tuple[Model, ...]:
        return to_models(*self._request("GET", f"{self._endpoint}{MODELS}", timeout))

    def status(self, names: Sequence[str], timeout: float) -> tuple[Model, ...]:
        models = self.models(timeout)
        answer = self._request("GET", f"{self._endpoint}{READINESS}", timeout)
        return with_readiness(models, to_report(*answer), names)

    def _request(
        self, method: str, url: str, timeout: float, **content: Any
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body."""
        limits = min(CONNECT_TIMEOUT_S, timeout), timeout
        try:
            response = self._http.request(method, url, timeout=limits, **content)
        except requests.ConnectTimeout as error:
            raise connect_timed_out(self._endpoint) from error
        except requests.Timeout as error:
            raise timed_out(self._endpoint) from error
        except requests.RequestException as error:
            raise connection_failed(self._endpoint, error) from error
        return response.status_code, response.headers, response.content

    def close(self) -> None:
        self._http.close()


class _Session(requests.Session):
    """Follows no redirects, which would take the token and the picture to another server."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


class _Authorization(AuthBase):
    """Adds the token. Setting ``auth`` also stops requests from reading ~/.netrc."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._access.authorization())
        return request


def request_headers(options: Mapping[str, str], timeout: float) -> dict[str, str]:
    """The headers of a prediction. The server drops one that still waits after ``timeout`` (s)."""
    headers = {f"x-{name.replace('_', '-')}": value for name, value in options.items()}
    milliseconds = str(math.ceil(1000 * timeout))
    return {"content-type": "application/octet-stream", "x-timeout-ms": milliseconds, **headers}


def to_reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """ServerError unless ``status`` is 200 and ``body`` is not an error."""
    if status != requests.codes.ok or parse_error(body):
        raise from_http(status, headers, body)
    return Reply(body, headers.get("x-model-weights"), headers.get("x-request-id"))


def to_models(status: int, headers: Mapping[str, str], body: bytes) -> tuple[Model, ...]:
    if status == requests.codes.not_found:
        message = "the server has no gateway, which lists its models: requests have to name one"
        raise ServerError(status, "NotFound", message)
    return listed(to_reply(status, headers, body))


def to_report(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """The report of ``/readyz``, which may have status 503. Raises ServerError for an error."""
    if status == requests.codes.service_unavailable and not parse_error(body):
        return Reply(body)
    return to_reply(status, headers, body)


def timed_out(endpoint: Endpoint) -> TimedOut:
    return TimedOut(f"{endpoint} gave no answer in time")


def connect_timed_out(endpoint: Endpoint) -> ConnectionFailed:
    return ConnectionFailed(f"no connection to {endpoint} within {CONNECT_TIMEOUT_S:g} s")


def connection_failed(endpoint: Endpoint, error: Exception) -> ConnectionFailed:
    return ConnectionFailed(f"no connection to {endpoint}: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """The innermost cause, which is the informative one: "Connection refused"."""
    while error.__context__ is not None:
        error = error.__context__
    # aiohttp's text is only "Connect call failed", but its errno gives the reason.
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)
    return str(error).strip().partition("\n")[0] or type(error).__name__
