"""Where a server differs from the contract, with the reason.

A reason is a row of the table in docs/scaling.md, "What differs".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.routes import Differs

_JAVA_404 = (404, "ResourceNotFoundException")
_NO_VERSION = (404, "ModelVersionNotFoundException")
_NO_PICTURE = (400, "EmptyBody")


def _by_case(reasons: Mapping[str, Mapping[str, Any]]) -> dict[str, Differs]:
    """From what the server does instead in each case, by reason."""
    return {
        case: Differs(instead, why)
        for why, cases in reasons.items()
        for case, instead in cases.items()
    }


BARE = _by_case(
    {
        "health routes are at the address of the metrics": {
            "GET /livez": _JAVA_404,
            "GET /readyz": _JAVA_404,
            "POST /readyz": _JAVA_404,
            "GET /models": _JAVA_404,
            "the client finds the models": False,
        },
        "`grpc.health.v1` is not served": {
            "gRPC: health": "UNIMPLEMENTED",
            "gRPC: health of an unknown model": "UNIMPLEMENTED",
        },
        "errors of routes and models are TorchServe's own": {
            "POST /predictions/resnet101/2.0": _NO_VERSION,
            "POST /predictions/resnet101/00c0ffee": _NO_VERSION,
            "POST /predictions/nothing": (404, "ModelNotFoundException"),
            "POST /predictions/resnet1012": (404, "ModelNotFoundException"),
            "POST /predictions/": _JAVA_404,
            "GET /": (405, "MethodNotAllowedException"),
            "GET /models/resnet101": _JAVA_404,
            "DELETE /models/resnet101": _JAVA_404,
            "GET /metrics": _JAVA_404,
            "GET /-/routes": _JAVA_404,
            "GET /-/healthz": _JAVA_404,
            "POST /predictions/resnet101/../../models": _NO_VERSION,
            "POST /predictions/resnet101/%2e%2e/%2e%2e/explanations/resnet101": _NO_VERSION,
            "POST /predictions/resnet101%5c..": (404, "ModelNotFoundException"),
            "POST //predictions//resnet101": _JAVA_404,
            "gRPC: unknown model": ("INTERNAL", ""),
            "gRPC: unknown version": ("INTERNAL", ""),
            "gRPC: no bytes": "INTERNAL",
            "gRPC: another field": "INTERNAL",
            "gRPC: endless field": "UNKNOWN",
            "gRPC: cut field": "UNKNOWN",
            "gRPC: 0xff": "UNKNOWN",
        },
        "every method of HTTP is a prediction": {
            "GET /predictions/resnet101": _NO_PICTURE,
            "DELETE /predictions/resnet101": _NO_PICTURE,
            "OPTIONS /predictions/resnet101": (200, ""),
        },
        "TorchServe's other routes and methods are open": {
            "OPTIONS /": (200, ""),
            "GET /api-description": (200, ""),
            "POST /invocations?model_name=resnet101": (400, "BadImage"),
            "POST /resnet101/predict": (400, "BadImage"),
            "POST /v1/models/resnet101:predict": (400, "BadImage"),
            "POST /models/resnet101/invoke": (400, "BadImage"),
            "POST /predictions%2fresnet101": (400, "BadImage"),
            "gRPC: StreamPredictions2": "OK",
            "gRPC: compressed": "OK",
        },
        "query strings are ignored": {
            "POST /predictions/resnet101?top_k=1": (400, "BadImage"),
            "a query is refused with advice": False,
        },
        "the answer's `x-request-id` is TorchServe's; over gRPC there is none": {
            "the answer has the id of the request": False,
            "gRPC: metadata of an answer": [None, None, None],
        },
        "no deadlines": {
            "a wrong x-timeout-ms": (400, "BadImage"),
            "x-timeout-ms passes": (200, None),
        },
        "a body announced as a web form is one, not a picture": {
            "a picture announced as a web form": (500, "ErrorDataDecoderException"),
        },
        "more than 24 MiB are 413 without a body, over gRPC CANCELLED": {
            "type of 24 MiB and more": None,
            "gRPC: 25 MiB": ("CANCELLED", ""),
        },
        "every error closes the connection": {
            "connections closed": [False, True, False],
        },
        "a full queue is 503 `ServiceUnavailableException`, without `retry-after`; no fairness": {
            "a full queue": (503, "ServiceUnavailableException", False),
        },
        "over gRPC an error has a status only if its whole batch failed in the same way": {
            "gRPC: an error in a mixed batch": False,
        },
        "line 1 of a gRPC error's details is the JSON; no metadata": {
            "gRPC: lines of an error's details": 2,
            "gRPC: x-error-type of an error": set(),
        },
        "each port serves one protocol": {
            "the port of gRPC serves REST": False,
        },
    }
)

RAY = _by_case(
    {
        "the proxy's own routes `/-/routes` and `/-/healthz` are open": {
            "GET /-/routes": (200, ""),
            "GET /-/healthz": (200, ""),
        },
        "a full queue is 503 `Overloaded`; no fairness": {
            "a full queue": (503, "Overloaded", True),
        },
        "an `x-request-id` that is unsafe to log is answered as it came": {
            "an id that is unsafe to log is kept": True,
        },
        "over gRPC, `x-model-weights`, `x-model-version` and `x-request-id` are in the trailing "
        "metadata": {
            "gRPC: metadata of an answer": [None, None, None],
        },
        "a gRPC message that cannot be parsed is UNKNOWN, compressed ones are read": {
            "gRPC: endless field": "UNKNOWN",
            "gRPC: cut field": "UNKNOWN",
            "gRPC: 0xff": "UNKNOWN",
            "gRPC: another field": "NOT_FOUND",
            "gRPC: compressed": "OK",
        },
        "each port serves one protocol": {
            "the port of gRPC serves REST": False,
        },
        "a form with folded headers is 400 `BadRequest`": {
            "a folded name": (400, "BadRequest"),
            "a folded option": (400, "BadRequest"),
        },
    }
)
