"""Every way to send one picture to a running server, with the answers in one form."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import requests

from serving.config import Config
from tests.running import Running
from vision_client import inference_pb2, inference_pb2_grpc

TIMEOUT_S = 120
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def post(server: Running, model: str, **request: Any) -> requests.Response:
    """A prediction over REST; ``request`` is what ``requests.post`` takes."""
    return requests.post(server.url(model), timeout=TIMEOUT_S, **request)


def prediction(model: str, **fields: bytes) -> inference_pb2.PredictionsRequest:
    return inference_pb2.PredictionsRequest(model_name=model, input=fields)


def predict(server: Running, model: str, **fields: bytes) -> bytes:
    """A prediction over gRPC."""
    request = prediction(model, **fields)
    body: bytes = server.grpc.Predictions(request, timeout=TIMEOUT_S).prediction
    return body


@dataclass(frozen=True)
class Reply:
    """``code`` is REST's status, whatever the route; ``kind`` is an error's type."""

    code: int
    kind: str
    body: bytes


class Client:
    """All routes to the server that ``config`` describes. Threads may share it."""

    def __init__(self, config: Config) -> None:
        self._url = f"{config.inference}/predictions"
        self._local = threading.local()
        self._channel = grpc.insecure_channel(config.grpc, UNLIMITED)
        self._stub = inference_pb2_grpc.InferenceAPIsServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def raw(self, model: str, picture: bytes, **options: str) -> Reply:
        headers = {f"x-{name.replace('_', '-')}": value for name, value in options.items()}
        return self._rest(model, data=picture, headers=headers)

    def multipart(self, model: str, picture: bytes, **options: str) -> Reply:
        return self._rest(model, files={"data": ("photo", picture)}, data=options)

    def json(self, model: str, picture: bytes, **options: str) -> Reply:
        return self._rest(model, json={"data": base64.b64encode(picture).decode(), **options})

    def grpc(self, model: str, picture: bytes, **options: str) -> Reply:
        fields = {name: value.encode() for name, value in options.items()}
        request = prediction(model, data=picture, **fields)
        try:
            body: bytes = self._stub.Predictions(request, timeout=TIMEOUT_S).prediction
        except grpc.RpcError as error:
            return _error(error.details().encode(), 500)
        return Reply(200, "", body)

    def _rest(self, model: str, **request: object) -> Reply:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False
        answer = self._local.session.post(f"{self._url}/{model}", timeout=TIMEOUT_S, **request)
        if answer.status_code == 200:
            return Reply(200, "", answer.content)
        return _error(answer.content, answer.status_code)


ROUTES: dict[str, Callable[..., Reply]] = {
    "raw": Client.raw,
    "multipart": Client.multipart,
    "json": Client.json,
    "grpc": Client.grpc,
}


def _error(body: bytes, code: int) -> Reply:
    """``code`` is used if the body is not an error of our handlers."""
    try:
        error = json.loads(body)
        return Reply(error["code"], error["type"], body)
    except (ValueError, KeyError, TypeError):
        return Reply(code, "", body)
