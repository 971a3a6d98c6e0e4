"""All metrics of the server in one text, for one scrape."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry, generate_latest

from serving.sockets import Sockets

TIMEOUT_S = 5.0


async def exposition(sockets: Sockets, registry: CollectorRegistry) -> bytes:
    """The metrics of TorchServe, of the gateway and of ``registry``, in Prometheus' text format.

    The metrics of a process that does not answer are left out.
    """
    parts = await asyncio.gather(
        _fetch(sockets.metrics, "/metrics"), _fetch(sockets.admin, "/stats/prometheus")
    )
    return b"".join([*parts, generate_latest(registry)])


async def _fetch(socket: Path, path: str) -> bytes:
    if not socket.exists():
        return b""
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT_S) as http:
        try:
            response = await http.get(f"http://localhost{path}")
            response.raise_for_status()
        except httpx.HTTPError:
            return b""
    text = response.content
    return text if text.endswith(b"\n") or not text else text + b"\n"
