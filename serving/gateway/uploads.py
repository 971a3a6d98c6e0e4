"""Bounds the bytes of requests that arrive and wait: no client fills the gateway's memory."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from serving.gateway.admission import Refused

# Uploads of at most so many bytes are let in without being counted.
SMALL_BYTES = 2**20
_RETRY_AFTER_S = 5


class Uploads:
    """At most ``most`` bytes at once, of one client at most half of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._present: Counter[str] = Counter()

    @contextlib.contextmanager
    def counted(self, client: str, size: int) -> Iterator[None]:
        """Count ``size`` bytes while the request is there. Raises Refused if they are too many."""
        if self._present[client] + size > self._most // 2:
            raise Refused(
                429,
                "TooManyRequests",
                "this client is uploading too many large pictures at once: wait",
                _RETRY_AFTER_S,
            )
        if self._present.total() + size > self._most:
            raise Refused(
                503, "Overloaded", "too many large pictures are being uploaded", _RETRY_AFTER_S
            )
        self._present[client] += size
        try:
            yield
        finally:
            self._present[client] -= size
            if not self._present[client]:
                del self._present[client]
