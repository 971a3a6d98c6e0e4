"""What can go wrong, the same over REST and gRPC; see docs/contract.md of the server."""

from __future__ import annotations

import json
import re
import time
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Any

import grpc


class VisionError(Exception):
    """The base of every error that this package raises for a call."""


class ConnectionFailed(VisionError):
    """No server there, a name that is not known, a certificate that is not trusted, a lost link."""


class TimedOut(VisionError):
    """No answer within the timeout. The server may still be at work: do not repeat at once."""


class ServerError(VisionError):
    """The server answered with an error.

    ``code`` is as over REST whatever the transport: 400, 413, 415, 422, 503 and the like. ``type``
    is the contract's word for it (``BadImage``), ``message`` for people. ``retry_after`` is
    how long the server asks to wait, in seconds and without an upper bound; 0.0 where it does not
    say, and always over gRPC.
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


# What reading JSON of another shape than expected raises: an infinite number is an
# OverflowError where an int is wanted, deep nesting a RecursionError.
MALFORMED = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


def from_http(status: int, headers: Any, body: bytes) -> ServerError:
    """The error in a response of ``status``, which may be a proxy's and no JSON at all."""
    told = from_json(body)
    if told is None:
        phrase = responses.get(status, "Unknown")
        type = phrase.title().replace(" ", "")
        message = _WITHOUT_WORDS.get(status, phrase)
        if status in _REDIRECTS and "location" in headers:
            message = (
                f"the server redirects to {headers['location']}; redirects are not followed, give "
                "the address of the server itself"
            )
        told = ServerError(status, type, message)
    told.request_id = headers.get("x-request-id")
    told.retry_after = _seconds(headers.get("retry-after", "").strip())
    return told


def _seconds(retry_after: str) -> float:
    """The value of the header, which is seconds or a date, in seconds; 0.0 where it is neither."""
    if re.fullmatch("[0-9]+", retry_after):
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


_REDIRECTS = {301, 302, 303, 307, 308}
# 413 without a body is TorchServe's, which reads no further.
_WITHOUT_WORDS = {413: "the request has more bytes than the server takes"}


def from_json(body: bytes) -> ServerError | None:
    """The error that ``body`` is, or None: predictions have no ``code``, pictures are no JSON."""
    if not body.lstrip().startswith(b"{"):
        return None
    try:
        told = json.loads(body)
        return ServerError(int(told["code"]), str(told["type"]), str(told["message"]))
    except MALFORMED:
        return None


def from_grpc(error: grpc.RpcError, server: str) -> VisionError:
    """What a call's status means. Line 1 of its details is our JSON or TorchServe's sentence."""
    status, details = error.code(), error.details() or ""
    # TorchServe heeds the deadline too: where it is the first to act, the call is cancelled.
    cancelled = status == grpc.StatusCode.CANCELLED
    if status == grpc.StatusCode.DEADLINE_EXCEEDED or (cancelled and "RST_STREAM" not in details):
        return TimedOut(f"{server} gave no answer in time")
    sentence, _, java = details.partition("\n")
    told = from_json(sentence.encode())
    if told is not None:
        return told
    if status == grpc.StatusCode.UNAVAILABLE:
        reason = re.sub(r"^.*last error: \w+: \w+:\S+:\d+: ", "", sentence)
        return ConnectionFailed(f"no connection to {server}: {reason}")
    if cancelled:
        return ServerError(413, "RequestEntityTooLarge", _WITHOUT_WORDS[413])
    for words, (code, type) in _TORCHSERVES.items():
        if words in sentence:
            return ServerError(code, type, sentence)
    type = java.strip().rpartition(".")[2] or status.name.title().replace("_", "")
    return ServerError(_CODES.get(status, 500), type, sentence)


# TorchServe's own errors over gRPC, as REST has them. The status says little: INTERNAL for most.
_TORCHSERVES = {
    "has no worker to serve": (503, "ServiceUnavailableException"),
    "Model not found": (404, "ModelNotFoundException"),
    "Token Authorization failed": (400, "InvalidKeyException"),
}
_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 507,  # a worker that was killed
    grpc.StatusCode.UNIMPLEMENTED: 501,
}
