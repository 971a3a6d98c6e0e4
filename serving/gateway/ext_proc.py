"""The messages of Envoy's external processing protocol that the admission queue uses.

They are the part of ``envoy/service/ext_proc/v3/external_processor.proto`` and of its imports that
is needed here, with the same field numbers.
"""

from __future__ import annotations

from typing import Any

from serving.gateway.messages import classes

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD = "Process"

_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "HeaderValue": {"key": (1, "string"), "value": (2, "string"), "raw_value": (3, "bytes")},
    "HeaderMap": {"headers": (1, "*HeaderValue")},
    "HttpHeaders": {"headers": (1, "HeaderMap")},
    "ProcessingRequest": {
        "request_headers": (2, "HttpHeaders"),
        "response_headers": (3, "HttpHeaders"),
    },
    "HeaderValueOption": {"header": (1, "HeaderValue"), "append_action": (3, "int32")},
    "HeaderMutation": {"set_headers": (1, "*HeaderValueOption")},
    "CommonResponse": {"header_mutation": (2, "HeaderMutation")},
    "HeadersResponse": {"response": (1, "CommonResponse")},
    "HttpStatus": {"code": (1, "int32")},
    "GrpcStatus": {"status": (1, "uint32")},
    "ImmediateResponse": {
        "status": (1, "HttpStatus"),
        "headers": (2, "HeaderMutation"),
        "body": (3, "bytes"),
        "grpc_status": (4, "GrpcStatus"),
        "details": (5, "string"),
    },
    "ProcessingResponse": {
        "request_headers": (1, "HeadersResponse"),
        "response_headers": (2, "HeadersResponse"),
        "immediate_response": (7, "ImmediateResponse"),
    },
}
# HeaderValueOption.append_action: OVERWRITE_IF_EXISTS_OR_ADD
_OVERWRITE = 2

_CLASSES = classes("vision.ext_proc", _MESSAGES)
ProcessingRequest: Any = _CLASSES["ProcessingRequest"]
ProcessingResponse: Any = _CLASSES["ProcessingResponse"]


def header_values(headers: Any) -> dict[str, str]:
    """The values of ``HttpHeaders`` by name; Envoy's names are in lower case."""
    return {
        header.key: header.value or header.raw_value.decode("latin-1")
        for header in headers.headers.headers
    }


def proceed(headers: dict[str, str]) -> Any:
    """Let the request go on, with ``headers`` set."""
    response = ProcessingResponse()
    response.request_headers.response.SetInParent()  # an empty message would be no answer
    _set(response.request_headers.response.header_mutation, headers)
    return response


def pass_response(headers: dict[str, str]) -> Any:
    """Let a response go on, with ``headers`` set."""
    response = ProcessingResponse()
    response.response_headers.response.SetInParent()
    _set(response.response_headers.response.header_mutation, headers)
    return response


def refuse(code: int, grpc_status: int, body: bytes, headers: dict[str, str], details: str) -> Any:
    """Answer the request with the HTTP status ``code`` and ``body``.

    A gRPC call gets ``grpc_status``, with ``body`` as its message. ``details`` goes to the access
    log.
    """
    response = ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = code
    immediate.grpc_status.status = grpc_status
    immediate.body = body
    immediate.details = details
    _set(immediate.headers, headers)
    return response


def _set(mutation: Any, headers: dict[str, str]) -> None:
    for name, value in headers.items():
        option = mutation.set_headers.add(append_action=_OVERWRITE)
        option.header.key = name
        option.header.raw_value = value.encode()
