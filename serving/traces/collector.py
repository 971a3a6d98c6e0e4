"""Sends spans to a collector, over OTLP/gRPC, in a thread of its own.

A collector that does not answer delays nobody: spans wait in memory, and the oldest are lost.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from serving.actions import say
from serving.traces.settings import TraceSettings

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
# Spans that wait at most, and that are sent at once. A span has about 500 bytes.
MOST_WAITING = 8192
AT_ONCE = 512
# Seconds between two exports, after a failed one, and for the collector to answer.
INTERVAL_S = 0.5
PAUSE_S = 5.0
TIMEOUT_S = 10.0
# Of the last export, when the server ends.
LAST_TIMEOUT_S = 2.0
# A failure is printed once; another one at the earliest after this time, in seconds.
SILENCE_S = 300.0
# https://opentelemetry.io/docs/specs/otlp/#failures: what may be sent again.
_RETRIED = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
_Waiting = tuple[str, Span]


class Collector:
    """The collector of ``settings``. ``add`` may be called from any thread and never blocks."""

    def __init__(self, settings: TraceSettings, announce: Callable[[str], None] = say) -> None:
        self._settings = settings
        self._say = announce
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._lost = 0
        self._fails = False
        self._said = -SILENCE_S
        self._told = False
        self._resource = Resource(
            attributes=[
                KeyValue(key=key, value=AnyValue(string_value=value))
                for key, value in settings.resource.items()
            ]
        )
        self._channel = _channel(settings)
        self._export = self._channel.unary_unary(
            EXPORT,
            request_serializer=ExportTraceServiceRequest.SerializeToString,
            response_deserializer=ExportTraceServiceResponse.FromString,
        )
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def add(self, scope: str, spans: Iterable[Span]) -> None:
        """Send ``spans`` of the part ``scope`` of this server soon."""
        with self._changed:
            self._waiting.extend((scope, span) for span in spans)
            self._drop_oldest()
            if len(self._waiting) >= AT_ONCE and not self._fails:
                self._changed.notify()

    def close(self) -> None:
        """Send what waits, for at most LAST_TIMEOUT_S, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(TIMEOUT_S)
        self._channel.close()

    def _run(self) -> None:
        ending = 0.0
        while True:
            with self._changed:
                if not self._closing and (self._fails or len(self._waiting) < AT_ONCE):
                    self._changed.wait(PAUSE_S if self._fails else INTERVAL_S)
                if self._closing and not ending:
                    ending = time.monotonic() + LAST_TIMEOUT_S
                count = min(len(self._waiting), AT_ONCE)
                batch = [self._waiting.popleft() for _ in range(count)]
            if batch:
                self._send(batch, max(ending - time.monotonic(), 0.1) if ending else TIMEOUT_S)
            if ending and (not self._waiting or self._fails or time.monotonic() > ending):
                return

    def _send(self, batch: list[_Waiting], timeout_s: float) -> None:
        try:
            self._export(self._request(batch), timeout=timeout_s, metadata=self._settings.headers)
        except grpc.RpcError as error:
            self._fail(error, batch)
            return
        self._fails = False
        if self._told:
            self._told = False
            self._say(f"{self._settings.endpoint} takes traces again; lost spans: {self._lost}")
            self._lost = 0

    def _fail(self, error: grpc.RpcError, batch: list[_Waiting]) -> None:
        with self._changed:
            if error.code() in _RETRIED:
                self._waiting.extendleft(reversed(batch))
                self._drop_oldest()
            else:
                self._lost += len(batch)
        if not self._fails and time.monotonic() - self._said >= SILENCE_S:
            self._said, self._told = time.monotonic(), True
            self._say(
                f"{self._settings.endpoint} takes no traces ({error.code().name}: "
                f"{error.details()}); requests are answered, and spans are lost meanwhile"
            )
        self._fails = True

    def _drop_oldest(self) -> None:
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self._lost += 1

    def _request(self, batch: list[_Waiting]) -> ExportTraceServiceRequest:
        scopes: dict[str, list[Span]] = {}
        for scope, span in batch:
            scopes.setdefault(scope, []).append(span)
        return ExportTraceServiceRequest(
            resource_spans=[
                ResourceSpans(
                    resource=self._resource,
                    scope_spans=[
                        ScopeSpans(scope=InstrumentationScope(name=scope), spans=spans)
                        for scope, spans in scopes.items()
                    ],
                )
            ]
        )


def _channel(settings: TraceSettings) -> grpc.Channel:
    # Without a limit, gRPC waits up to two minutes before it connects again.
    options = [("grpc.max_reconnect_backoff_ms", round(PAUSE_S * 1000))]
    if not settings.is_secure:
        return grpc.insecure_channel(settings.target, options)
    authority = settings.certificate.read_bytes() if settings.certificate else None
    return grpc.secure_channel(settings.target, grpc.ssl_channel_credentials(authority), options)
