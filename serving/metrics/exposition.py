"""All metrics of the server in one text, for one scrape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.registry import Collector

from serving.metrics.recorder import Recorder, Report, ignore
from serving.metrics.series import Series
from serving.metrics.workers import Reported
from serving.sockets import Sockets

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TIMEOUT_S = 5.0


class Metrics:
    """The supervisor's own metrics of ``models``, and those of the processes behind ``sockets``.

    ``models`` are as in Series. ``traced`` gets what workers report, as in Recorder.
    """

    def __init__(
        self,
        sockets: Sockets,
        models: Mapping[str, str],
        *,
        gateway: bool,
        traced: Callable[[Report, Report], None] = ignore,
    ) -> None:
        self._registry = CollectorRegistry()
        self.series = Series(self._registry, models, gateway=gateway)
        self.reported = Reported()
        self.recorder = Recorder(self.series, self.reported, traced)
        self._sources = {"torchserve": (sockets.metrics, "/metrics")}
        if gateway:
            self._sources["gateway"] = (sockets.admin, "/stats/prometheus")
        self._complete = Gauge(
            "vision_exposition_complete",
            "1 if the own metrics of this process are in this text, 0 if it did not answer",
            ["process"],
            registry=self._registry,
        )

    def watch(self, state: Collector) -> None:
        """Ask ``state`` at each scrape, too."""
        self._registry.register(state)

    async def text(self) -> bytes:
        """The metrics of TorchServe, of the gateway and our own, in Prometheus' text format.

        Those of a process that does not answer are left out.
        """
        texts = await asyncio.gather(*(_fetch(*source) for source in self._sources.values()))
        for process, text in zip(self._sources, texts, strict=True):
            self._complete.labels(process).set(bool(text))
        # The state is read from /proc: in a thread, so that the queue goes on.
        return b"".join([*texts, await asyncio.to_thread(generate_latest, self._registry)])


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
