"""What refuses a request before a model sees it: the gateway's queue, and the front on Ray."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

# HTTP status -> gRPC status, as in docs/contract.md.
GRPC_STATUS = {
    400: 3, 401: 16, 404: 5, 406: 3, 413: 8, 415: 9, 422: 9, 429: 8,
    500: 13, 503: 14, 504: 4, 507: 8,
}  # fmt: skip
_LONGEST_TIMEOUT_MS = 86_400_000


class Refused(Exception):
    """A request is refused, with the status, type and message of the contract's error.

    ``retry_after`` is in seconds; 0 means that a retry does not help.
    """

    def __init__(self, code: int, type: str, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.type = type
        self.message = message
        self.retry_after = retry_after

    def to_json(self) -> bytes:
        """The body of the answer."""
        error = {"code": self.code, "type": self.type, "message": self.message}
        return json.dumps(error).encode()


def deadline_exceeded() -> Refused:
    return Refused(504, "DeadlineExceeded", "the time that the client allows has passed")


def no_worker(model: str) -> Refused:
    return Refused(503, "Unavailable", f"{model} has no worker: try again", 5)


def no_version(model: str, version: str, versions: Collection[str]) -> Refused:
    there = ", ".join(versions)
    message = f"{model} has no version {version}: it has {there}"
    return Refused(404, "ModelNotFound", message)


def queue_full(retry_after: int) -> Refused:
    return Refused(503, "Overloaded", "the queue is full: try again", retry_after)


def too_many_at_once(most: int) -> Refused:
    return Refused(
        429, "TooManyRequests", f"this client may have {most} requests at once: try again", 1
    )


def check_query(query: str, options: Collection[str]) -> None:
    """Raise Refused unless the query string of a prediction is empty: nobody reads it."""
    if not query:
        return
    name = query.partition("&")[0].partition("=")[0].lower().replace("-", "_")
    header = f"x-{name.replace('_', '-')}"
    remedy = f"send {name} as the header {header}" if name in options else "options are headers"
    raise Refused(400, "BadRequest", f"a prediction has no query string: {remedy}")


def timeout_of(text: str) -> float:
    """The seconds in the header ``x-timeout-ms``. Raises Refused if it is invalid."""
    if not re.fullmatch("[0-9]{1,8}", text) or not 0 < int(text) <= _LONGEST_TIMEOUT_MS:
        raise Refused(422, "InvalidOption", f"x-timeout-ms must be from 1 to {_LONGEST_TIMEOUT_MS}")
    return int(text) / 1000
