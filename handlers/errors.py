"""The errors of requests and of loading; each request error has an HTTP code and a type.

::

    package   returns              may raise
    request   picture and options  BadRequest 400, EmptyBody 400, NotFound 404, TooLarge 413,
                                   NotAcceptable 406, InvalidOption 422
    pictures  (H, W, 3) pixels     BadImage 400, UnsupportedFormat 415, TooLarge 413,
                                   Overloaded 503
    network   a row of output      Overloaded 503
    task      the answer
    any                            InternalError 500

Messages are written for the client and never contain paths, versions or tracebacks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import ClassVar, Concatenate, ParamSpec, TypeVar

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class LoadError(Exception):
    """The network cannot be served here; the message says what to do."""


class RequestError(Exception):
    """A failure of one request. Other requests in its batch are not affected."""

    code: ClassVar[int]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def to_json(self) -> bytes:
        """The body of the answer: ``{"code": ..., "type": ..., "message": ...}`` in UTF-8."""
        body = {"code": self.code, "type": type(self).__name__, "message": self.message}
        return json.dumps(body).encode()


class BadRequest(RequestError):
    """The request is malformed: broken JSON or base64, several pictures."""

    code = 400


class EmptyBody(RequestError):
    """The request has no picture, or an empty one."""

    code = 400


class BadImage(RequestError):
    """The bytes cannot be decoded as the picture they claim to be."""

    code = 400


class NotFound(RequestError):
    """The request came on a route that is not served."""

    code = 404


class NotAcceptable(RequestError):
    """The server can produce none of the media types in ``Accept``."""

    code = 406


class TooLarge(RequestError):
    """The request exceeds a limit on bytes, pixels or decoding work, which the message names."""

    code = 413


class UnsupportedFormat(RequestError):
    """A picture format outside the allow-list."""

    code = 415


class InvalidOption(RequestError):
    """An option is out of range, of the wrong type, or misspelt."""

    code = 422


class InternalError(RequestError):
    """A bug in the server. The traceback goes to the log only."""

    code = 500

    def __init__(self, message: str = "the server failed on this request; its log says why"):
        super().__init__(message)


class Overloaded(RequestError):
    """The server lacks time or memory for this request now; a retry may succeed."""

    code = 503


def attempt(
    step: Callable[Concatenate[T, P], R],
    value: T | RequestError,
    *args: P.args,
    **kwargs: P.kwargs,
) -> R | RequestError:
    """The result of ``step(value, ...)``, or its error. An error of an earlier step is returned.

    An unexpected exception becomes InternalError.
    """
    if isinstance(value, RequestError):
        return value
    try:
        return step(value, *args, **kwargs)
    except RequestError as error:
        return error
    except Exception:
        logger.exception("a request failed because of a bug")
        return InternalError()
