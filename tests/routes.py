"""A server as its clients see it, and every way to send it one picture."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import requests

import vision_client
from vision_client import inference_pb2, inference_pb2_grpc
from vision_client.errors import parse_error

T = TypeVar("T")
TIMEOUT_S = 120
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True)
class Differs:
    """What a server does ``instead`` of what the contract says, and why."""

    instead: Any
    why: str


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that answers.

    ``rest`` and ``health`` are the base URLs of predictions and of the health routes, and
    ``grpc_address`` is ``host:port``. ``workers(model)`` are the process ids of a model's workers,
    and ``log()`` is what all workers have logged so far. ``differs`` has the server's differences
    from the contract by the name of the case. To save time, only every ``corpus_step``-th of the
    odd pictures that the suite's server gets is sent to this one.
    """

    rest: str
    health: str
    grpc_address: str
    grpc: inference_pb2_grpc.InferenceAPIsServiceStub
    client: vision_client.Client
    workers: Callable[[str], list[int]]
    log: Callable[[], str]
    differs: Mapping[str, Differs] = field(default_factory=dict)
    corpus_step: int = 1

    def url(self, model: str) -> str:
        return f"{self.rest}/predictions/{model}"

    def expected(self, case: str, contract: T) -> T:
        """What this server does in ``case``, in which the contract says ``contract``."""
        instead: T = self.differs[case].instead if case in self.differs else contract
        return instead


def post(server: Server, model: str, **request: Any) -> requests.Response:
    """A prediction over REST; ``request`` is what ``requests.post`` takes."""
    return requests.post(server.url(model), timeout=TIMEOUT_S, **request)


def prediction(model: str, **fields: bytes) -> inference_pb2.PredictionsRequest:
    return inference_pb2.PredictionsRequest(model_name=model, input=fields)


def predict(server: Server, model: str, **fields: bytes) -> bytes:
    """A prediction over gRPC."""
    request = prediction(model, **fields)
    body: bytes = server.grpc.Predictions(request, timeout=TIMEOUT_S).prediction
    return body


@dataclass(frozen=True)
class Reply:
    """``code`` is REST's status, whatever the route; ``kind`` is an error's type.

    ``has_status`` is false for an error that came over gRPC with the status OK.
    """

    code: int
    kind: str
    body: bytes
    has_status: bool = True


class Client:
    """All routes to a server: ``rest`` is its base URL, ``grpc_address`` ``host:port``.

    Threads may share it.
    """

    def __init__(self, rest: str, grpc_address: str) -> None:
        self._url = f"{rest}/predictions"
        self._local = threading.local()
        self._channel = grpc.insecure_channel(grpc_address, UNLIMITED)
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
            return _error(error.details().partition("\n")[0].encode(), 500)
        if failed := parse_error(body):
            return Reply(failed.code, failed.type, body, has_status=False)
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
