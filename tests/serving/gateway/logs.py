"""What the gateway logs about a request."""

from __future__ import annotations

import json
from typing import Any

from tests.running import Running, wait_until


def access(server: Running, request_id: str) -> dict[str, Any]:
    """The line of the access log about the request with that id; it comes within a second."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        lines = (server.run.logs / "access.log").read_text().splitlines()
        found[:] = [line for line in map(json.loads, lines) if line["request_id"] == request_id]
        return bool(found)

    wait_until(look)
    [line] = found
    return line
