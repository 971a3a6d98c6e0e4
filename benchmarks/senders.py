"""One client's way to ask: a picture out, and ``""`` back, or what was wrong with the answer."""

from __future__ import annotations

import http.client
import json

import grpc

from vision_client import inference_pb2, inference_pb2_grpc

TIMEOUT_S = 300
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # a proxy of the shell's is not for our own server
]


class Rest:
    """POSTs the picture as the raw body over one connection that stays open."""

    def __init__(self, address: str, model: str) -> None:
        """``address`` is ``host:port``."""
        self._connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
        self._path = f"/predictions/{model}"

    def __call__(self, picture: bytes) -> str:
        headers = {"content-type": "application/octet-stream"}
        try:
            self._connection.request("POST", self._path, picture, headers)
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()  # the next request opens another
            return type(error).__name__
        return "" if response.status == http.client.OK else str(response.status)

    def close(self) -> None:
        self._connection.close()


class Grpc:
    """Calls ``Predictions`` over a channel that several clients may share."""

    def __init__(self, channel: grpc.Channel, model: str) -> None:
        self._stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        self._model = model

    def __call__(self, picture: bytes) -> str:
        request = inference_pb2.PredictionsRequest(model_name=self._model, input={"data": picture})
        try:
            body: bytes = self._stub.Predictions(request, timeout=TIMEOUT_S).prediction
        except grpc.RpcError as error:
            return str(error.code().name)
        # An error among the good answers of its batch has status OK.
        return str(json.loads(body)["code"]) if body.startswith(b'{"code"') else ""


def channel(address: str) -> grpc.Channel:
    """To ``host:port``, for messages of any size."""
    return grpc.insecure_channel(address, _CHANNEL_OPTIONS)
