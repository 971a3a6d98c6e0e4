"""A server's metrics, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable

import requests
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.running import Running


def families(server: Running) -> dict[str, Metric]:
    """The metrics by name; the parser leaves `_total` out of a counter's."""
    text = requests.get(f"{server.config.metrics}/metrics", timeout=60).text
    return {family.name: family for family in text_string_to_metric_families(text)}


def counted(server: Running) -> Callable[[], dict[tuple[str, ...], float]]:
    """The growth of ``vision_requests_total`` from now on, by model, protocol, code and error."""
    names = ("model", "protocol", "code", "error")

    def now() -> dict[tuple[str, ...], float]:
        samples = families(server)["vision_requests"].samples
        return {tuple(sample.labels[name] for name in names): sample.value for sample in samples}

    before = now()
    return lambda: {
        labels: value - before.get(labels, 0.0)
        for labels, value in now().items()
        if value != before.get(labels)
    }
