"""The spans of a request: the gateway's, which Envoy reports, the queue's and the worker's.

    POST /predictions/NAME     gateway, a child of the client's span if it has sent one
      queue                    supervisor
      worker                   TorchServe's worker
        decode, preprocess, network, encode

Names of attributes are those of OpenTelemetry's semantic conventions, and ``vision.*`` for what
these have no name for. The SDK's tracer cannot make such spans, which others have begun and ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

Value = str | int | float
_GRPC_SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
_PREDICTION = re.compile(f"/predictions/.|{re.escape(_GRPC_SERVICE)}(Stream)?Predictions$")
# Envoy's attributes -> those of the span, with their types. Others are left out, as the URL, whose
# query may have secrets.
_GATEWAY: dict[str, tuple[str, type[Value]]] = {
    "http.method": ("http.request.method", str),
    "http.status_code": ("http.response.status_code", int),
    "grpc.status_code": ("rpc.grpc.status_code", int),
    "request_size": ("http.request.body.size", int),
    "response_size": ("http.response.body.size", int),
    "response_flags": ("vision.gateway.flags", str),
    "url.path": ("url.path", str),
    "vision.request.id": ("vision.request.id", str),
    "vision.model.name": ("vision.model.name", str),
    "vision.model.version": ("vision.model.version", str),
    "error.type": ("error.type", str),
    "trailer.error.type": ("error.type", str),
}
_NOTHING = ("", "-")  # Envoy's missing values
# gRPC statuses that are the server's fault, by the conventions: UNKNOWN, DEADLINE_EXCEEDED,
# UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
_GRPC_FAULTS = (2, 4, 12, 13, 14, 15)
_NEW = RandomIdGenerator()


class Spans:
    """Makes spans of this server, which the standard variables may describe."""

    def __init__(self) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "vision"}))
        self._resource = resource

    def gateway(self, reported: trace_pb2.Span) -> ReadableSpan | None:
        """Envoy's span of a prediction with the attributes above; None for any other of Envoy's."""
        found: dict[str, Value] = {}
        for attribute in reported.attributes:
            text = attribute.value.string_value
            if attribute.key in _GATEWAY and text not in _NOTHING:
                name, kind = _GATEWAY[attribute.key]
                found[name] = kind(text)
        path = str(found.get("url.path", ""))
        # Envoy's calls of the supervisor for this request are of kind CLIENT.
        is_server = reported.kind == trace_pb2.Span.SPAN_KIND_SERVER
        if not is_server or not _PREDICTION.match(path):
            return None
        model, method = found.get("vision.model.name", ""), found.get("http.request.method", "")
        is_grpc = path.startswith(_GRPC_SERVICE)
        trace = int.from_bytes(reported.trace_id)
        parent = int.from_bytes(reported.parent_span_id)
        code = int(found.get("http.response.status_code", 0))
        return ReadableSpan(
            path[1:] if is_grpc else f"{method} /predictions/{model}",
            _context(trace, int.from_bytes(reported.span_id)),
            _context(trace, parent) if parent else None,
            self._resource,
            found,
            kind=SpanKind.SERVER,
            status=_status(code >= 500 or found.get("rpc.grpc.status_code") in _GRPC_FAULTS),
            start_time=reported.start_time_unix_nano,
            end_time=reported.end_time_unix_nano,
            instrumentation_scope=InstrumentationScope("gateway"),
        )

    def queue(
        self,
        traceparent: str,
        period: tuple[int, int],
        attributes: Mapping[str, Value],
        error: str,
        code: int,
    ) -> ReadableSpan:
        """The wait of the request of ``traceparent``; ``period`` in nanoseconds since 1970.

        ``error`` is the type of the error if the request was refused, with the status ``code``,
        else empty.
        """
        return self._span("queue", "queue", _parent(traceparent), period, attributes, error, code)

    def worker(self, report: Mapping[str, Any], batch: Mapping[str, Any]) -> Iterator[ReadableSpan]:
        """The spans of a ``batch`` of handlers.reports: for each request, one and its stages.

        The requests of a batch are computed together, so they have the same times:
        ``vision.batch.size`` says how many they are. A stage that runs several times, as for
        pictures of several sizes, has one span; ``vision.stage.seconds`` is the time spent in it.
        """
        traced, size = batch["traced"], batch["requests"]
        for traceparent, id, code, error in traced["requests"]:
            attributes = {
                "vision.request.id": id,
                "vision.model.name": report["model"],
                "vision.model.version": report["serves"]["version"],
                "vision.batch.size": size,
                "process.pid": report["process"],
                "http.response.status_code": code,
            }
            outer, period = _parent(traceparent), tuple(traced["period"])
            worker = self._span("worker", "worker", outer, period, attributes, error, code)
            yield worker
            for stage, stage_period in traced["stages"].items():
                spent = {"vision.stage.seconds": batch["stages"][stage], "vision.batch.size": size}
                yield self._span("worker", stage, worker.context, tuple(stage_period), spent)

    def _span(
        self,
        scope: str,
        name: str,
        parent: SpanContext,
        period: tuple[int, int],
        attributes: Mapping[str, Value],
        error: str = "",
        code: int = 0,
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            _context(parent.trace_id, _NEW.generate_span_id()),
            parent,
            self._resource,
            {**attributes, **({"error.type": error} if error else {})},
            status=_status(code >= 500),
            start_time=period[0],
            end_time=period[1],
            instrumentation_scope=InstrumentationScope(scope),
        )


def _context(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _parent(traceparent: str) -> SpanContext:
    _, trace, span, _ = traceparent.split("-")
    return _context(int(trace, 16), int(span, 16))


def _status(is_fault: bool) -> Status:
    """By the conventions, a client's error is none of the server."""
    return Status(StatusCode.ERROR if is_fault else StatusCode.UNSET)
