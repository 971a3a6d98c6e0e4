"""Measures what traces cost: the same loads on a server without them and on one with them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tools.gateway.common import served
from tools.gateway.cost import run, table

NAMES = "off", "on"


async def traces(device: str, scale: float) -> AsyncIterator[str]:
    """Latency and throughput with every request traced, beside those without traces."""
    received: list[int] = []

    def receive(request: Any, _: grpc.ServicerContext) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                received.extend(span.ByteSize() for span in scope.spans)

    with collector(receive) as url:
        results = []
        for shell in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": url}):
            with served(device, shell=shell) as server:
                results.append(run(server, scale))
    without, traced = results
    for line in table(without, traced, NAMES):
        yield line
    yield f"{len(received)} spans of {sum(received)} bytes have arrived"


@contextlib.contextmanager
def collector(receive: Callable[[Any, grpc.ServicerContext], None]) -> Iterator[str]:
    """The URL of an OTLP/gRPC server, which calls ``receive`` with each export."""

    def export(request: Any, context: grpc.ServicerContext) -> Any:
        receive(request, context)
        return ExportTraceServiceResponse()

    method = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=ExportTraceServiceRequest.FromString,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    handler = grpc.method_handlers_generic_handler(service, {"Export": method})
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, [handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.stop(None).wait(10)
