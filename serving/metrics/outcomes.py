"""How a request ended: one HTTP status and one type of error, over REST and gRPC alike."""

from __future__ import annotations

from serving.gateway.access_log import Ended

PROTOCOLS = ("rest", "grpc")
# The labels `code` and `error` of a success.
SUCCESS = ("200", "")
# The types of docs/contract.md with their HTTP status, which gRPC calls are counted under too.
# `ClientLeft` has the status that nginx gives it; `Other` is an error without a type of ours.
STATUS = {
    "BadRequest": "400",
    "EmptyBody": "400",
    "BadImage": "400",
    "Unauthorized": "401",
    "NotFound": "404",
    "ModelNotFound": "404",
    "MethodNotAllowed": "405",
    "NotAcceptable": "406",
    "RequestTimeout": "408",
    "TooLarge": "413",
    "UnsupportedFormat": "415",
    "InvalidOption": "422",
    "TooManyRequests": "429",
    "ClientLeft": "499",
    "InternalError": "500",
    "Other": "500",
    "Unimplemented": "501",
    "Overloaded": "503",
    "Unavailable": "503",
    "DeadlineExceeded": "504",
    "WorkerDied": "507",
}
# TorchServe's own answers over REST have no type: the contract's for their status.
_TYPES = {400: "BadRequest", 404: "ModelNotFound", 503: "Overloaded", 507: "WorkerDied"}


def outcome(ended: Ended) -> tuple[str, str]:
    """The labels ``code`` and ``error`` of a request; every pair is SUCCESS or one of STATUS."""
    if ended.error in STATUS:
        return STATUS[ended.error], ended.error
    if ended.is_grpc and ended.status == 200:
        if ended.grpc_status == "0":
            return SUCCESS
        error = "Other" if ended.grpc_status else "ClientLeft"
    elif 200 <= ended.status < 400:
        return SUCCESS
    else:
        error = _TYPES.get(ended.status, "Other") if ended.status else "ClientLeft"
    return STATUS[error], error
