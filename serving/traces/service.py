"""Sends what the gateway, the queue and the workers report to a collector, as spans.

Envoy reports over OTLP/gRPC on the socket that it asks the queue on, workers in the reports that
metrics are made of. So one process alone talks to the collector, with one configuration, and
knows what is left to send when the server ends.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from handlers.traces import is_sampled
from serving.actions import say
from serving.refusals import Refused
from serving.traces.spans import Spans

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
# The gateway's span of a request, as `trace id-span id`; Envoy sets it.
HEADER = "x-gateway-trace"
# Seconds for the last spans when the server ends.
END_S = 3.0
# Of the exporter's complaints one is printed, and another at the earliest after this time, seconds.
SILENCE_S = 300.0


class Traces:
    """Sends spans to the collector that the standard variables name.

    Spans that cannot be sent wait, 2048 of them; then the oldest are lost. ``handler`` is the gRPC
    service for Envoy.
    """

    def __init__(self) -> None:
        _print_seldom()
        self._exporter = OTLPSpanExporter()
        self._processor = BatchSpanProcessor(self._exporter)
        self._spans = Spans()
        self.handler = _GatewayReports(self)

    def gateway_of(self, headers: Mapping[str, str], metadata: Iterable[tuple[str, str]]) -> str:
        """The gateway's span of a request as a ``traceparent``; empty if it is not traced.

        ``headers`` are the request's. ``metadata`` is that of Envoy's call: its own ``traceparent``
        says whether the request is sampled.
        """
        is_traced = HEADER in headers and is_sampled(dict(metadata).get("traceparent", ""))
        return f"00-{headers[HEADER]}-01" if is_traced else ""

    @contextlib.contextmanager
    def wait(self, traceparent: str, attributes: Mapping[str, str | int]) -> Iterator[None]:
        """A span of the body: the wait in the queue of the request of ``traceparent``."""
        began = time.time_ns()
        error, code = "ClientLeft", 0
        try:
            yield
            error = ""
        except Refused as refused:
            error, code = refused.type, refused.code
            raise
        finally:
            period = began, time.time_ns()
            self._send([self._spans.queue(traceparent, period, attributes, error, code)])

    def batch(self, report: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """A worker has reported a ``batch``, perhaps with requests that are traced."""
        if "traced" in batch:
            self._send(self._spans.worker(report, batch))

    def gateway(self, request: ExportTraceServiceRequest) -> None:
        """Envoy has reported spans."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self._send(filter(None, map(self._spans.gateway, scope.spans)))

    def close(self) -> None:
        """Send what is left, for at most END_S."""
        limit = threading.Timer(END_S, self._exporter.shutdown)
        limit.daemon = True
        limit.start()
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        limit.cancel()

    def _send(self, spans: Iterable[ReadableSpan]) -> None:
        for span in spans:
            self._processor.on_end(span)


class _GatewayReports(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, traces: Traces) -> None:
        self._traces = traces

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method != EXPORT:
            return None
        return grpc.unary_unary_rpc_method_handler(
            self._receive,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )

    async def _receive(self, request: Any, _: Any) -> Any:
        self._traces.gateway(request)
        return ExportTraceServiceResponse()


class _Seldom(logging.Handler):
    """Prints a record, and no other for SILENCE_S."""

    _printed = -SILENCE_S

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() - self._printed >= SILENCE_S:
            self._printed = time.monotonic()
            say(f"traces: {record.getMessage()} (requests are answered; spans may be lost)")


def _print_seldom() -> None:
    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [_Seldom(logging.WARNING)], False
