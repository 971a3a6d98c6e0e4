"""What all answers have in common."""

from __future__ import annotations

from dataclasses import dataclass

from vision_client.errors import ServerError

UNTRAINED = "untrained"


@dataclass(frozen=True)
class Reply:
    """A response. ``weights`` and ``request_id`` are None over gRPC without the gateway."""

    body: bytes
    weights: str | None = None
    request_id: str | None = None

    def unexpected(self, expected: str) -> ServerError:
        """The error for a body that is not ``expected``, for example from another server."""
        start = self.body[:60].decode(errors="replace")
        message = f"not {expected} but {start!r}"
        return ServerError(502, "UnexpectedAnswer", message, self.request_id)


@dataclass(frozen=True)
class Answer:
    """The base of Classification, Embedding and Translation.

    ``weights`` names the weights of the network and ``request_id`` identifies the request in the
    server's log; both are None over gRPC if the server has no gateway. ``seconds`` is the duration
    of the call, including the pauses between attempts.
    """

    weights: str | None
    request_id: str | None
    seconds: float

    @property
    def untrained(self) -> bool:
        """Whether the network has random weights, so that the answer is meaningless."""
        return self.weights == UNTRAINED
