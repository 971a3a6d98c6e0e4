"""Receives what the gateway, the queue and the workers report, and sends it as spans.

Envoy reports over OTLP/gRPC on the socket that it asks the queue on, workers with datagrams (see
``handlers.traces``). So one process alone talks to the collector, with one configuration, and
knows what is left to send when the server ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from handlers.traces import LARGEST, is_sampled
from serving.refusals import Refused
from serving.traces.collector import EXPORT, Collector
from serving.traces.settings import TraceSettings
from serving.traces.spans import gateway_span, queue_span, worker_spans

logger = logging.getLogger(__name__)

# Envoy reports within this time, in seconds; it is written into its configuration.
GATEWAY_FLUSH_S = 0.25
# The gateway's span of a request, as `trace id-span id`; Envoy sets it.
HEADER = "x-gateway-trace"


class Traces:
    """Sends spans to the collector of ``settings``; ``reports`` is the socket of the workers.

    ``handler`` is the gRPC service for Envoy.
    """

    def __init__(self, settings: TraceSettings, reports: Path) -> None:
        self._collector = Collector(settings)
        self._path = reports
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(reports))
        self._thread = threading.Thread(target=self._read, name="reports", daemon=True)
        self._thread.start()
        self.handler = _GatewayReports(self._collector)

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
            span = queue_span(traceparent, began, time.time_ns(), attributes, error, code)
            self._collector.add("queue", [span])

    def close(self) -> None:
        """Send what is left, within seconds."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with end, contextlib.suppress(OSError):
            end.sendto(b"", str(self._path))
        self._thread.join(GATEWAY_FLUSH_S)
        self._socket.close()
        self._collector.close()

    def _read(self) -> None:
        while report := self._socket.recv(LARGEST):
            try:
                self._collector.add("worker", worker_spans(json.loads(report)))
            except (ValueError, KeyError, TypeError, AttributeError):
                logger.exception("a worker's report cannot be read")


class _GatewayReports(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method != EXPORT:
            return None
        return grpc.unary_unary_rpc_method_handler(
            self._receive,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )

    async def _receive(self, request: Any, _: Any) -> Any:
        reported = (
            span
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        )
        self._collector.add("gateway", filter(None, map(gateway_span, reported)))
        return ExportTraceServiceResponse()
