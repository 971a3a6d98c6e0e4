"""Envoy's access log service, over gRPC: Envoy tells it of each request that has ended.

It hears of every request with its outcome, whoever answered it: TorchServe, the queue, a filter or
Envoy itself. The messages are the part of ``envoy/service/accesslog/v3/als.proto`` and
``envoy/data/accesslog/v3/accesslog.proto`` that is needed here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from serving.gateway.messages import classes

_METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
_CLASSES = classes(
    "vision.access_log",
    {
        "StreamAccessLogsMessage": {"http_logs": (2, "Entries")},
        "StreamAccessLogsResponse": {},
        "Entries": {"log_entry": (1, "*Entry")},
        "Entry": {"common": (1, "Common"), "request": (3, "Request"), "response": (4, "Response")},
        "Common": {
            "time_to_last_rx_byte": (6, "Duration"),
            "time_to_last_downstream_tx_byte": (12, "Duration"),
        },
        "Duration": {"seconds": (1, "int64"), "nanos": (2, "int32")},
        "Request": {"request_headers": (13, "*Header")},
        "Response": {
            "response_code": (1, "Number"),
            "response_headers": (4, "*Header"),
            "response_trailers": (5, "*Header"),
        },
        # The entries of a map are messages.
        "Header": {"key": (1, "string"), "value": (2, "bytes")},
        "Number": {"value": (1, "uint32")},
    },
)


@dataclass(frozen=True)
class Ended:
    """A request that has ended, as the gateway saw it.

    ``model`` is what the client named, which may be anything, and ``version`` what answered.
    ``status`` is the HTTP status (0: the client left), ``grpc_status`` gRPC's number as text,
    ``error`` the type of the error; the last two and the version are empty if the answer has none.
    ``seconds`` are those from the arrival of the whole request to the end of the answer, None if
    one of them is missing.
    """

    model: str
    version: str
    is_grpc: bool
    status: int
    grpc_status: str
    error: str
    seconds: float | None


class AccessLogService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Calls ``record`` for each request that has ended, within a second."""

    def __init__(self, record: Callable[[Ended], None]) -> None:
        self._record = record

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method, for gRPC; None for any other method."""
        if handler_call_details.method != _METHOD:
            return None
        return grpc.stream_unary_rpc_method_handler(
            self._read,
            request_deserializer=_CLASSES["StreamAccessLogsMessage"].FromString,
            response_serializer=_CLASSES["StreamAccessLogsResponse"].SerializeToString,
        )

    async def _read(self, messages: AsyncIterator[Any], _: Any) -> Any:
        async for message in messages:
            for entry in message.http_logs.log_entry:
                self._record(_ended(entry))
        return _CLASSES["StreamAccessLogsResponse"]()


def _ended(entry: Any) -> Ended:
    request = _values(entry.request.request_headers)
    response = entry.response
    answer = _values(response.response_headers) | _values(response.response_trailers)
    times = entry.common
    seconds = None
    if times.HasField("time_to_last_rx_byte") and times.HasField("time_to_last_downstream_tx_byte"):
        begun, ended = times.time_to_last_rx_byte, times.time_to_last_downstream_tx_byte
        seconds = ended.seconds - begun.seconds + (ended.nanos - begun.nanos) / 1e9
    return Ended(
        request.get("x-gateway-model", ""),
        answer.get("x-model-version", ""),
        request.get("content-type", "").startswith("application/grpc"),
        response.response_code.value,
        answer.get("grpc-status", ""),
        answer.get("x-error-type", ""),
        seconds,
    )


def _values(headers: Iterable[Any]) -> dict[str, str]:
    return {header.key: header.value.decode(errors="replace") for header in headers}
