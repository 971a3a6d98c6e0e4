"""What the front and the replicas of a model send each other, and the errors of the front.

The front does not import ``handlers``: each replica runs the copy in its own archive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


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

    ``retry_after`` is in seconds; 0 means that the answer has no such header.
    """

    code: int
    content_type: str
    body: bytes
    error: str = ""
    weights: str = ""
    retry_after: int = 0


class Refused(Exception):
    """A request is answered with an error of the contract: its status, type and message.

    ``retry_after`` is in seconds; 0 means that a retry does not help.
    """

    def __init__(self, code: int, type: str, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.type = type
        self.retry_after = retry_after

    def reply(self) -> Reply:
        error = {"code": self.code, "type": self.type, "message": str(self)}
        body = json.dumps(error).encode()
        return Reply(self.code, "application/json", body, self.type, "", self.retry_after)
