"""gRPC: the picture and the options in one map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from vision_client import inference_pb2, inference_pb2_grpc
from vision_client.answers import Reply
from vision_client.endpoint import Access, Endpoint
from vision_client.errors import from_grpc, from_json


class Rpc:
    """Over one channel, which reconnects by itself; for use from several threads."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._access = access
        self._channel = _channel(grpc, endpoint, access)
        self._stub = inference_pb2_grpc.InferenceAPIsServiceStub(self._channel)

    def send(self, model: str, picture: bytes, options: Mapping[str, str], timeout: float) -> Reply:
        request = _request(model, picture, options)
        metadata = tuple(self._access.authorization().items())
        try:
            answer = self._stub.Predictions(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise from_grpc(error, str(self._endpoint)) from error
        return _reply(answer)

    def close(self) -> None:
        self._channel.close()


class AsyncRpc:
    """The same on an event loop; made and used within one."""

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
            answer = await self._stub.Predictions(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise from_grpc(error, str(self._endpoint)) from error
        return _reply(answer)

    async def close(self) -> None:
        await self._channel.close()


def _channel(kind: Any, endpoint: Endpoint, access: Access) -> Any:
    """``kind`` is ``grpc`` or ``grpc.aio``."""
    options = [
        # Pictures outgrow the default of 4 MB; the server has the limits that count.
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0 if endpoint.is_loopback else 1),
    ]
    if not endpoint.is_secure:
        return kind.insecure_channel(endpoint.address, options)
    credentials = grpc.ssl_channel_credentials(access.authority())
    return kind.secure_channel(endpoint.address, credentials, options)


def _request(
    model: str, picture: bytes, options: Mapping[str, str]
) -> inference_pb2.PredictionsRequest:
    fields = {"data": picture, **{name: value.encode() for name, value in options.items()}}
    return inference_pb2.PredictionsRequest(model_name=model, input=fields)


def _reply(answer: inference_pb2.PredictionResponse) -> Reply:
    # An error among the good answers of its batch has status OK.
    error = from_json(answer.prediction)
    if error is not None:
        raise error
    return Reply(answer.prediction)
