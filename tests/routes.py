"""Every way to send one picture to a running server, and its answer in one shape."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import requests

from serving.config import Config
from vision_client import inference_pb2, inference_pb2_grpc

TIMEOUT_S = 120


@dataclass(frozen=True)
class Reply:
    """``code`` as over REST, whatever the route; ``kind`` is an error's type."""

    code: int
    kind: str
    body: bytes


class Client:
    """All routes to the server that ``config`` describes; for use from several threads."""

    def __init__(self, config: Config) -> None:
        self._url = f"{config.inference}/predictions"
        self._local = threading.local()
        self._channel = grpc.insecure_channel(
            config.grpc,
            [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
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
        """An error is one as a status, or as JSON among the good answers of its batch."""
        fields = {"data": picture, **{name: value.encode() for name, value in options.items()}}
        request = inference_pb2.PredictionsRequest(model_name=model, input=fields)
        try:
            body: bytes = self._stub.Predictions(request, timeout=TIMEOUT_S).prediction
        except grpc.RpcError as error:
            return _error(error.details().splitlines()[0].encode(), 500)
        if body.startswith(b'{"code"'):
            return _error(body, 500)
        return Reply(200, "", body)

    def _rest(self, model: str, **request: object) -> Reply:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False
        url = f"{self._url}/{model}"
        answer = self._local.session.post(url, timeout=TIMEOUT_S, **request)
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
    """``code`` where the body is none of ours."""
    try:
        error = json.loads(body)
        return Reply(error["code"], error["type"], body)
    except (ValueError, KeyError, TypeError):
        return Reply(code, "", body)
