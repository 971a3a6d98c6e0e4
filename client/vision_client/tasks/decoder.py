"""How the client handles one task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from vision_client.answers import Answer, Reply

# A GIF of one pixel: the smallest picture to ask with.
PIXEL = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"

A_co = TypeVar("A_co", bound=Answer, covariant=True)


@dataclass(frozen=True)
class Range:
    """The integers that an option accepts: ``low`` to ``high``, multiples of ``multiple``.

    ``default`` is the server's. ``high`` is None if it depends on the network.
    """

    default: int
    low: int
    high: int | None = None
    multiple: int = 1

    def allows(self, value: int) -> bool:
        high = value if self.high is None else self.high
        return self.low <= value <= high and value % self.multiple == 0


@dataclass(frozen=True)
class Decoder(Generic[A_co]):
    """``decode(reply, seconds)`` returns the answer, or raises ServerError if it is not one.

    ``canary`` are the options of the cheapest request, which the server's canary sends.
    """

    task: str
    decode: Callable[[Reply, float], A_co]
    canary: Mapping[str, int | str]
