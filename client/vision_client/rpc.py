"""gRPC: the picture and the options are entries of one map."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

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
    seconds,
)
from vision_client.models import MISSING, Model

Metadata = Iterable[tuple[str, str]]

SERVER = ""  # the name of the whole server in gRPC's health protocol
NAMELESS = "over gRPC the server does not list its models: name the model"


class Rpc:
    """One channel, which reconnects by itself and may be shared by threads."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._access = access
        self._channel = _channel(grpc, endpoint, access)
        self._stub = inference_pb2_grpc.InferenceAPIsServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def send(self, model: str, picture: bytes, options: Mapping[str, str], timeout: float) -> Reply:
        request = _request(model, picture, options)
        metadata = tuple(self._access.authorization().items())
        try:
            response, call = self._stub.Predictions.with_call(
                request, timeout=timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            raise from_grpc(error, str(self._endpoint)) from error
        return _reply(response, call.initial_metadata(), call.trailing_metadata())

    def models(self, timeout: float) -> NoReturn:
        raise ValueError(NAMELESS)

    def status(self, names: Sequence[str], timeout: float) -> tuple[Model, ...]:
        return tuple(self._check(name, timeout) for name in names or [SERVER])

    def _check(self, name: str, timeout: float) -> Model:
        try:
            return _model(name, self._health.Check(_asked(name), timeout=timeout))
        except grpc.RpcError as error:
            return _missing(name, error, str(self._endpoint))

    def close(self) -> None:
        self._channel.close()


class AsyncRpc:
    """The same on an event loop; create and use it within one loop."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._access = access
        self._channel = _channel(grpc.aio, endpoint, access)
        self._stub = inference_pb2_grpc.InferenceAPIsServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def send(
        self, model: str, picture: bytes, options: Mapping[str, str], timeout: float
    ) -> Reply:
        request = _request(model, picture, options)
        metadata = tuple(self._access.authorization().items())
        try:
            call = self._stub.Predictions(request, timeout=timeout, metadata=metadata)
            response = await call
            initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
        except grpc.RpcError as error:
            raise from_grpc(error, str(self._endpoint)) from error
        return _reply(response, initial, trailing)

    async def models(self, timeout: float) -> NoReturn:
        raise ValueError(NAMELESS)

    async def status(self, names: Sequence[str], timeout: float) -> tuple[Model, ...]:
        return tuple([await self._check(name, timeout) for name in names or [SERVER]])

    async def _check(self, name: str, timeout: float) -> Model:
        try:
            return _model(name, await self._health.Check(_asked(name), timeout=timeout))
        except grpc.RpcError as error:
            return _missing(name, error, str(self._endpoint))

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
    certificate, key = access.certificate() or (None, None)
    credentials = grpc.ssl_channel_credentials(access.authority(), key, certificate)
    return module.secure_channel(endpoint.address, credentials, options)


def _request(
    model: str, picture: bytes, options: Mapping[str, str]
) -> inference_pb2.PredictionsRequest:
    fields = {"data": picture, **{name: value.encode() for name, value in options.items()}}
    return inference_pb2.PredictionsRequest(model_name=model, input=fields)


def _reply(
    response: inference_pb2.PredictionResponse, initial: Metadata, trailing: Metadata
) -> Reply:
    # Without a gateway, a failed request arrives with status OK if others of its batch succeeded.
    if error := parse_error(response.prediction):
        raise error
    headers = {**dict(initial), **dict(trailing)}  # Ray Serve sends only trailing metadata
    return Reply(response.prediction, headers.get("x-model-weights"), headers.get("x-request-id"))


def _asked(name: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


def _model(name: str, answer: health_pb2.HealthCheckResponse) -> Model:
    return Model(name, answer.status == health_pb2.HealthCheckResponse.SERVING)


def _missing(name: str, error: grpc.RpcError, server: str) -> Model:
    """A model that the server does not have; raises any other error."""
    if error.code() == grpc.StatusCode.NOT_FOUND:
        return Model(name, False, reason=MISSING)
    raise from_grpc(error, server) from error


def from_grpc(error: grpc.RpcError, server: str) -> VisionError:
    """The details of a failed call are the server's JSON.

    Without its gateway the JSON, or TorchServe's sentence, is line 1 of the details.
    """
    status, details = error.code(), error.details() or ""
    # TorchServe enforces the deadline too; if it acts before the client does, it cancels the call.
    cancelled = status == grpc.StatusCode.CANCELLED
    if status == grpc.StatusCode.DEADLINE_EXCEEDED or (cancelled and "RST_STREAM" not in details):
        return TimedOut(f"{server} gave no answer in time")
    sentence, _, java_class = details.partition("\n")
    if own := parse_error(sentence.encode()):
        # A call that the gateway itself refuses has only trailing metadata.
        headers = {**dict(error.initial_metadata() or ()), **dict(error.trailing_metadata() or ())}
        own.request_id = headers.get("x-request-id")
        own.retry_after = seconds(headers.get("retry-after", "").strip())
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
}
_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 507,  # the worker was killed
    grpc.StatusCode.UNIMPLEMENTED: 501,
}
