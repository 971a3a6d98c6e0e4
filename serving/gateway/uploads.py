"""Bounds the bytes of large requests, so that no client fills the gateway's memory."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from serving.refusals import Refused

# Requests of at most this many bytes are not counted.
SMALL_BYTES = 2**20
_RETRY_AFTER_S = 5


class Uploads:
    """Admits at most ``most`` bytes at once, and at most half of them for one client."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._present: Counter[str] = Counter()

    @contextlib.contextmanager
    def counted(self, client: str, size: int) -> Iterator[None]:
        """Count ``size`` bytes of ``client`` within the context. Raises Refused at a limit."""
        if self._present[client] + size > self._most // 2:
            raise Refused(
                429,
                "TooManyRequests",
                "this client has too many large requests at once: wait",
                _RETRY_AFTER_S,
            )
        if self._present.total() + size > self._most:
            raise Refused(
                503, "Overloaded", "there are too many large requests at once: wait", _RETRY_AFTER_S
            )
        self._present[client] += size
        try:
            yield
        finally:
            self._present[client] -= size
            if not self._present[client]:
                del self._present[client]
