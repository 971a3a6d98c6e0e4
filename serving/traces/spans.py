"""OTLP spans of a request: the gateway's, which Envoy reports, the queue's and the worker's.

    POST /predictions/NAME     gateway, a child of the client's span if it has sent one
      queue                    supervisor
      worker                   TorchServe's worker
        decode, preprocess, network, encode

Names of attributes are those of OpenTelemetry's semantic conventions, and ``vision.*`` for what
these have no name for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Value = str | int | float
_GRPC_SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
_PREDICTION = re.compile(f"/predictions/.|{re.escape(_GRPC_SERVICE)}(Stream)?Predictions$")
_SAMPLED = 1
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
    "error.type": ("error.type", str),
    "trailer.error.type": ("error.type", str),
}
_NOTHING = ("", "-")  # Envoy's missing values
# gRPC statuses that are the server's fault, by the conventions: UNKNOWN, DEADLINE_EXCEEDED,
# UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
_GRPC_FAULTS = (2, 4, 12, 13, 14, 15)


def gateway_span(reported: Span) -> Span | None:
    """Envoy's span of a prediction with the attributes above; None for any other span of Envoy."""
    found: dict[str, Value] = {}
    for attribute in reported.attributes:
        text = attribute.value.string_value
        if attribute.key in _GATEWAY and text not in _NOTHING:
            name, kind = _GATEWAY[attribute.key]
            found[name] = kind(text)
    path = str(found.get("url.path", ""))
    # Envoy's calls of the supervisor for this request are of kind CLIENT.
    if reported.kind != Span.SPAN_KIND_SERVER or not _PREDICTION.match(path):
        return None
    if path.startswith(_GRPC_SERVICE):
        reported.name = path[1:]
    else:
        model = found.get("vision.model.name", "")
        reported.name = f"{found.get('http.request.method', '')} /predictions/{model}"
    del reported.attributes[:]
    reported.status.Clear()
    is_fault = int(found.get("http.response.status_code", 0)) >= 500
    _describe(reported, found, is_fault or found.get("rpc.grpc.status_code") in _GRPC_FAULTS)
    return reported


def queue_span(
    traceparent: str,
    began: int,
    ended: int,
    attributes: Mapping[str, Value],
    error: str,
    code: int,
) -> Span:
    """The wait of the request of ``traceparent``; times in nanoseconds since 1970.

    ``error`` is the type of the error if the request was refused, with the status ``code``, else
    empty.
    """
    return _span("queue", traceparent, (began, ended), attributes, error, code)


def worker_spans(report: Mapping[str, Any]) -> list[Span]:
    """The spans of a report of ``handlers.traces``: for each request, one and its stages.

    The requests of a batch are computed together, so they have the same times:
    ``vision.batch.size`` says how many they are. A stage that runs several times, as for pictures
    of several sizes, has one span, and ``vision.stage.seconds`` is the time that it took in it.
    """
    spans = []
    for traceparent, id, code, error in report["requests"]:
        attributes = {
            "vision.request.id": id,
            "vision.model.name": report["model"],
            "vision.model.version": report["version"],
            "vision.batch.size": report["members"],
            "process.pid": report["process"],
            "http.response.status_code": code,
        }
        period = report["began"], report["ended"]
        worker = _span("worker", traceparent, period, attributes, error, code)
        spans.append(worker)
        inner = f"00-{worker.trace_id.hex()}-{worker.span_id.hex()}-01"
        for stage, (began, ended, seconds) in report["stages"].items():
            of_stage = {"vision.stage.seconds": seconds, "vision.batch.size": report["members"]}
            spans.append(_span(stage, inner, (began, ended), of_stage))
    return spans


def _span(
    name: str,
    traceparent: str,
    period: tuple[int, int],
    attributes: Mapping[str, Value],
    error: str = "",
    code: int = 0,
) -> Span:
    _, trace, parent, _ = traceparent.split("-")
    span = Span(
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        trace_id=bytes.fromhex(trace),
        span_id=os.urandom(8),
        parent_span_id=bytes.fromhex(parent),
        flags=_SAMPLED,
        start_time_unix_nano=period[0],
        end_time_unix_nano=period[1],
    )
    _describe(span, {**attributes, **({"error.type": error} if error else {})}, code >= 500)
    return span


def _describe(span: Span, attributes: Mapping[str, Value], is_fault: bool) -> None:
    """Set the attributes, and the status: a client's error is none of the server."""
    span.attributes.extend(KeyValue(key=key, value=_value(v)) for key, v in attributes.items())
    if is_fault:
        span.status.code = Status.STATUS_CODE_ERROR


def _value(value: Value) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)
