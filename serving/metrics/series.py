"""The counters and histograms of the server."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from handlers.stages import ENDED, STAGES
from serving.actions import Action
from serving.metrics.buckets import REQUESTS, SECONDS
from serving.metrics.outcomes import PROTOCOLS, STATUS, SUCCESS


class Series:
    """The series in ``registry``, each from the start with 0 for every label that it can have.

    ``models`` are all that are served, with the version of each at the start: other names, which
    any client may send, are no label. The version is empty if no worker has answered.
    Without ``gateway`` nobody counts requests, and those series are absent.
    """

    def __init__(
        self, registry: CollectorRegistry, models: Mapping[str, str], *, gateway: bool
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each
        self.models = frozenset(models)
        requests = registry if gateway else None
        self.requests = Counter(
            "vision_requests",
            "Requests that have ended, over REST and gRPC alike, by HTTP status and type of error",
            ["model", "version", "protocol", "code", "error"],
            registry=requests,
        )
        self.durations = Histogram(
            "vision_request_duration_seconds",
            "From the arrival of the whole request to the end of its answer, if that is a success",
            ["model", "version", "protocol"],
            buckets=SECONDS,
            registry=requests,
        )
        self.waits = Histogram(
            "vision_queue_wait_seconds",
            "Time of a request in the queue, until its turn or its refusal",
            ["model"],
            buckets=SECONDS,
            registry=requests,
        )
        self.stages = Histogram(
            "vision_stage_seconds",
            "Time of a batch in a stage",
            ["model", "stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batches = Histogram(
            "vision_batch_requests",
            "Requests in a batch",
            ["model"],
            buckets=REQUESTS,
            registry=registry,
        )
        self.pixels = Counter(
            "vision_network_pixels",
            "Pixels of the pictures that the network has computed, at its input size",
            ["model"],
            registry=registry,
        )
        self.decoders = Counter(
            "vision_decode_processes_ended",
            "Decode processes that have ended and were replaced, by the reason",
            ["model", "reason"],
            registry=registry,
        )
        self.lost = Counter(
            "vision_workers_lost",
            "Workers that have ended while the server ran; TorchServe starts others",
            ["model"],
            registry=registry,
        )
        self.actions = Counter(
            "vision_watchdog_actions",
            "What the supervisor did to keep the models answering",
            ["action", "model"],
            registry=registry,
        )
        self._start_at_zero(models)

    def _start_at_zero(self, models: Mapping[str, str]) -> None:
        """A rate needs a value before the first event."""
        refused = [(model, "") for model in (*models, "")]
        for protocol in PROTOCOLS:
            for version in (*models.items(), *refused):
                for error, code in STATUS.items():
                    self.requests.labels(*version, protocol, code, error)
            for version in models.items():
                self.requests.labels(*version, protocol, *SUCCESS)
                self.durations.labels(*version, protocol)
        for model in models:
            for stage in STAGES:
                self.stages.labels(model, stage)
            for reason in ENDED:
                self.decoders.labels(model, reason)
            for each in (self.waits, self.batches, self.pixels, self.lost):
                each.labels(model)
        for action in Action:
            for model in models if action.is_of_a_model else ("",):
                self.actions.labels(action, model)
