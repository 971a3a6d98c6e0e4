"""gRPC: the picture and the options are entries of one map."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from vision_client import inference_pb2, inference_pb2_grpc
from vision_client.answers import Reply
from vision_client.endpoint import Access, Endpoint
from vision_client.errors import (
    OVERSIZED,
    ConnectionFailed,
    ServerError,
    TimedOut,
    VisionError,
    parse_error,
)


class Rpc:
    """One channel, which reconnects by itself and may be shared by threads."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._access = access
        self._channel = _channel(grpc, endpoint, access)
        self._stub = inference_pb2_grpc.InferenceAPIsServiceStub(self._channel)

    def send(self, model: str, picture: bytes, options: Mapping[str, str], timeout: float) -> Reply:
        request = _request(model, picture, options)
        metadata = tuple(self._access.authorization().items())
        try:
            response = self._stub.Predictions(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise from_grpc(error, str(self._endpoint)) from error
        return _reply(response)

    def close(self) -> None:
        self._channel.close()


class AsyncRpc:
    """The same on an event loop; create and use it within one loop."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._access = access
        self._channel = _channel(grpc.aio, endpoint, access)
        self._stub = inference_pb2_grpc.InferenceAPIsServiceStub(self._channel)

    async def send(
        self, model: str, picture: bytes, options: Mapping[str, str], timeout: float
    ) -> Reply:
        request = _request(model, picture, options)
        metadata = tuple(self._access.authorization().items())
        try:
            response = await self._stub.Predictions(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise from_grpc(error, str(self._endpoint)) from error
        return _reply(response)

    async def close(self) -> None:
        await self._channel.close()


def _channel(module: Any, endpoint: Endpoint, access: Access) -> Any:
    """``module`` is ``grpc`` or ``grpc.aio``."""
    options = [
        # Pictures exceed the default of 4 MB; the server enforces its own limits.
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0 if endpoint.is_loopback else 1),
    ]
    if not endpoint.is_secure:
        return module.insecure_channel(endpoint.address, options)
    credentials = grpc.ssl_channel_credentials(access.authority())
    return module.secure_channel(endpoint.address, credentials, options)


def _request(
    model: str, picture: bytes, options: Mapping[str, str]
) -> inference_pb2.PredictionsRequest:
    fields = {"data": picture, **{name: value.encode() for name, value in options.items()}}
    return inference_pb2.PredictionsRequest(model_name=model, input=fields)


def _reply(response: inference_pb2.PredictionResponse) -> Reply:
    # If other requests of its batch succeeded, a failed one arrives with status OK.
    if error := parse_error(response.prediction):
        raise error
    return Reply(response.prediction)


def from_grpc(error: grpc.RpcError, server: str) -> VisionError:
    """Line 1 of the details of a failed call is the server's JSON or TorchServe's sentence."""
    status, details = error.code(), error.details() or ""
    # TorchServe enforces the deadline too; if it acts before the client does, it cancels the call.
    cancelled = status == grpc.StatusCode.CANCELLED
    if status == grpc.StatusCode.DEADLINE_EXCEEDED or (cancelled and "RST_STREAM" not in details):
        return TimedOut(f"{server} gave no answer in time")
    sentence, _, java_class = details.partition("\n")
    if own := parse_error(sentence.encode()):
        return own
    if status == grpc.StatusCode.UNAVAILABLE:
        reason = re.sub(r"^.*last error: \w+: \w+:\S+:\d+: ", "", sentence)
        return ConnectionFailed(f"no connection to {server}: {reason}")
    if cancelled:
        return ServerError(413, "RequestEntityTooLarge", OVERSIZED)
    for part, (code, type) in _TORCHSERVE_ERRORS.items():
        if part in sentence:
            return ServerError(code, type, sentence)
    type = java_class.strip().rpartition(".")[2] or status.name.title().replace("_", "")
    return ServerError(_CODES.get(status, 500), type, sentence)


# TorchServe's own errors with the code and type that they have over REST. Over gRPC most of them
# have the status INTERNAL, so they are told apart by their sentence.
_TORCHSERVE_ERRORS = {
    "has no worker to serve": (503, "ServiceUnavailableException"),
    "Model not found": (404, "ModelNotFoundException"),
    "Token Authorization failed": (400, "InvalidKeyException"),
}
_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 507,  # the worker was killed
    grpc.StatusCode.UNIMPLEMENTED: 501,
}
