"""The errors of a call, the same over REST and gRPC; the server's docs/contract.md lists them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.client import responses


class VisionError(Exception):
    """The base of every error that this package raises for a call."""


class ConnectionFailed(VisionError):
    """Connection refused or lost, unknown host, untrusted certificate."""


class TimedOut(VisionError):
    """No answer within the timeout. The server may still compute it: do not retry at once."""


class ServerError(VisionError):
    """The server answered with an error.

    ``code`` is the HTTP status over both transports: 400, 413, 415, 422, 429, 503 and others.
    ``type`` is the name in the contract (``BadImage``), ``message`` is for people. ``retry_after``
    is the number of seconds that the server asks to wait, without an upper bound; 0.0 if it does
    not say. ``request_id`` identifies the request in the server's log.
    """

    def __init__(
        self,
        code: int,
        type: str,
        message: str,
        request_id: str | None = None,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(code, type, message)
        self.code = code
        self.type = type
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.code} {self.type}: {self.message}"


# The errors of reading JSON that has another shape than expected: int() of an infinite number
# raises OverflowError, deep nesting raises RecursionError.
MALFORMED = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)

# The type of the error that the server answers when the client's timeout has passed.
DEADLINE_EXCEEDED = "DeadlineExceeded"

# TorchServe refuses a request above its own limit without a message.
OVERSIZED = "the request has more bytes than the server takes"


def parse_error(body: bytes) -> ServerError | None:
    """The error in ``body``, or None. An error is a JSON object with code, type and message."""
    if not body.lstrip().startswith(b"{"):
        return None
    try:
        error = json.loads(body)
        return ServerError(int(error["code"]), str(error["type"]), str(error["message"]))
    except MALFORMED:
        return None


def from_http(status: int, headers: Mapping[str, str], body: bytes) -> VisionError:
    """The error in a response with ``status``. A proxy's response may not be JSON."""
    error = parse_error(body) or _from_status(status, headers)
    if error.type == DEADLINE_EXCEEDED:
        return TimedOut(error.message)
    error.request_id = headers.get("x-request-id")
    error.retry_after = seconds(headers.get("retry-after", "").strip())
    return error


_REDIRECTS = {301, 302, 303, 307, 308}


def _from_status(status: int, headers: Mapping[str, str]) -> ServerError:
    phrase = responses.get(status, "Unknown")
    message = OVERSIZED if status == 413 else phrase
    if status in _REDIRECTS and "location" in headers:
        message = (
            f"the server redirects to {headers['location']}; redirects are not followed, give "
            "the address of the server itself"
        )
    return ServerError(status, phrase.title().replace(" ", ""), message)


def seconds(retry_after: str) -> float:
    """``retry-after``, which is a number of seconds or a date, in seconds; 0.0 if it is neither."""
    if re.fullmatch("[0-9]+", retry_after):
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
