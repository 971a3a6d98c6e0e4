"""A collector of OpenTelemetry traces: an OTLP/gRPC server that keeps what it gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tools.gateway.traces import collector


@dataclass(frozen=True)
class Kept:
    """A span; ``scope`` is the part of the server that it is of, ``period`` in ns since 1970."""

    scope: str
    name: str
    trace: str
    id: str
    parent: str
    period: tuple[int, int]
    attributes: dict[str, str | int | float]
    is_server: bool
    is_error: bool


class Collecting:
    """``spans`` is what has arrived, ``resources`` whose, ``metadata`` that of each export.

    Exports fail with ``status`` unless it is None.
    """

    def __init__(self) -> None:
        self.spans: list[Kept] = []
        self.resources: list[dict[str, str]] = []
        self.metadata: list[dict[str, str]] = []
        self.status: grpc.StatusCode | None = None

    def of(self, trace: str) -> dict[str, Kept]:
        """The spans of ``trace`` by name."""
        found = [span for span in self.spans if span.trace == trace]
        by_name = {span.name: span for span in found}
        assert len(by_name) == len(found), found
        return by_name

    def receive(self, request: Any, context: grpc.ServicerContext) -> None:
        """Keep what an export brings."""
        self.metadata.append(dict(context.invocation_metadata()))
        if self.status:
            context.abort(self.status, "not now")
        for resource in request.resource_spans:
            self.resources.append(
                {each.key: each.value.string_value for each in resource.resource.attributes}
            )
            for scope in resource.scope_spans:
                self.spans += [_kept(scope.scope.name, span) for span in scope.spans]


@contextmanager
def collecting() -> Iterator[tuple[Collecting, str]]:
    """A collector and its URL."""
    collecting = Collecting()
    with collector(collecting.receive) as url:
        yield collecting, url


def _kept(scope: str, span: Any) -> Kept:
    return Kept(
        scope,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        (span.start_time_unix_nano, span.end_time_unix_nano),
        {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes},
        span.kind == Span.SPAN_KIND_SERVER,
        span.status.code == Status.STATUS_CODE_ERROR,
    )
