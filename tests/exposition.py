"""A server's metrics, as Prometheus reads them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

import requests
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


def families(url: str) -> dict[str, Metric]:
    """The metrics at ``url`` by name; the parser leaves `_total` out of a counter's."""
    text = requests.get(f"{url}/metrics", timeout=60).text
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(url: str, name: str, **labels: str) -> float:
    """The value of one sample of a counter or gauge, which must be there."""
    samples = families(url)[name.removesuffix("_total")].samples
    [found] = [sample.value for sample in samples if sample.labels == labels]
    return found


def counted(url: str) -> Callable[[], dict[tuple[str, ...], float]]:
    """The growth of ``vision_requests_total`` from now on, by model, protocol, code and error."""
    names = ("model", "protocol", "code", "error")

    def now() -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for sample in families(url)["vision_requests"].samples:
            found[tuple(sample.labels[name] for name in names)] += sample.value
        return found

    before = now()
    for _ in range(30):  # a request of an earlier test is counted within a second after its end
        time.sleep(1.2)
        last, before = before, now()
        if before == last:
            break
    return lambda: {
        labels: value - before.get(labels, 0.0)
        for labels, value in now().items()
        if value != before.get(labels)
    }
