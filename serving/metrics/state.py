"""The state of the server at the moment of a scrape."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

import psutil
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.gateway.admission import ModelQueue
from serving.health import Health
from serving.management import Worker
from serving.metrics.workers import SERVES, Reported
from serving.processes import family


class State(Collector):
    """Gauges of ``health``, of the ``queues`` by model (empty without a gateway), of the workers.

    ``workers`` gives those that TorchServe has, by version; ``expiries`` when each certificate and
    each API key expires, by kind and name.
    """

    def __init__(
        self,
        health: Health,
        queues: Mapping[str, ModelQueue],
        reported: Reported,
        workers: Callable[[], Mapping[str, Sequence[Worker]]],
        expiries: Callable[[], Mapping[tuple[str, str], datetime]],
    ) -> None:
        self._health = health
        self._queues = queues
        self._reported = reported
        self._workers = workers
        self._expiries = expiries
        self._started = time.time()

    def collect(self) -> Iterator[Metric]:
        """Every gauge."""
        yield GaugeMetricFamily(
            "vision_start_time_seconds", "When the server was started", value=self._started
        )
        yield from self._models()
        yield from self._queue()
        yield from self._devices()
        yield from self._expiry()

    def _models(self) -> Iterator[Metric]:
        version = "model", "version"
        ready = _gauge("vision_model_ready", "1 if the model answers, else 0", "model")
        wanted = _gauge("vision_workers_wanted", "Workers that are planned", *version)
        workers = _gauge("vision_workers_ready", "Workers that can take a batch", *version)
        memory = _gauge(
            "vision_worker_memory_bytes",
            "Resident memory of the workers and of their decode processes",
            *version,
        )
        listed = self._workers()
        for model in self._health.models:
            ready.add_metric([model], self._health.report_model(model)["ready"])
        for key, state in self._health.reports().items():
            labels = key.split("/")
            wanted.add_metric(labels, state["wanted"])
            workers.add_metric(labels, state["workers"])
            memory.add_metric(labels, sum(_resident(each.pid) for each in listed.get(key, ())))
        return iter((ready, wanted, workers, memory))

    def _queue(self) -> Iterator[Metric]:
        waiting = _gauge("vision_queue_waiting", "Requests that wait for their turn", "model")
        most = _gauge("vision_queue_waiting_limit", "The most that may wait", "model")
        in_work = _gauge("vision_queue_in_work", "Requests that are with TorchServe", "model")
        slots = _gauge("vision_queue_in_work_limit", "The most that TorchServe gets", "model")
        for model, queue in self._queues.items():
            waiting.add_metric([model], queue.waiting)
            most.add_metric([model], queue.capacity.waiting)
            in_work.add_metric([model], queue.in_work)
            slots.add_metric([model], queue.capacity.slots)
        return iter((waiting, most, in_work, slots))

    def _devices(self) -> Iterator[Metric]:
        info = _gauge("vision_model_info", "What is served; the value is 1", "model", *SERVES)
        used = _gauge("vision_device_memory_used_bytes", "Memory of a GPU, by anyone", "device")
        total = _gauge("vision_device_memory_bytes", "Memory that a GPU has", "device")
        for labels in sorted(self._reported.serves()):
            info.add_metric(labels, 1)
        for device, memory in sorted(self._reported.memory().items()):
            used.add_metric([device], memory.used)
            total.add_metric([device], memory.total)
        return iter((info, used, total))

    def _expiry(self) -> Iterator[Metric]:
        families = {
            kind: _gauge(f"vision_{kind}_expiry_timestamp_seconds", help, kind)
            for kind, help in (
                ("certificate", "When the first certificate of this file expires"),
                ("key", "When the API key of this client expires"),
            )
        }
        for (kind, name), expires in sorted(self._expiries().items()):
            families[kind].add_metric([name], expires.timestamp())
        return iter(families.values())


def _gauge(name: str, help: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help, labels=labels)


def _resident(pid: int) -> int:
    """Bytes of a process and its descendants; 0 if it has ended."""
    total = 0
    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total
