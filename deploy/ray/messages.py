"""What the front and the replicas of a model send each other.

The front does not import ``handlers``: each replica runs the copy in its own archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.refusals import Refused


@dataclass(frozen=True)
class Call:
    """A request for a model, unchecked: the fields of ``handlers.request.Message``."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    fields: Mapping[str, bytes] = field(default_factory=dict)
    id: str = "-"


@dataclass(frozen=True)
class Reply:
    """An answer, or an error as JSON. ``error`` is the error's type, ``weights`` a name.

    ``version`` is that of the archive that answered. ``retry_after`` is in seconds; 0 means
    that the answer has no such header.
    """

    code: int
    content_type: str
    body: bytes
    error: str = ""
    weights: str = ""
    version: str = ""
    retry_after: int = 0


def refusal(refused: Refused) -> Reply:
    """The reply to a request that the front refuses."""
    return Reply(
        refused.code,
        "application/json",
        refused.to_json(),
        refused.type,
        retry_after=refused.retry_after,
    )
