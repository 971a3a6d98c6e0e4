"""Servers of the tests' own that stand in for the gateway."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from vision_client import Model, inference_pb2, inference_pb2_grpc
from vision_client.tasks.decoder import Range
from vision_client.tasks.translate import QUALITY, SIZE

LIMIT_S = 60
CLASSIFIER, TRANSLATOR = "resnet101", "cyclegan"
TOP_K = Range(default=5, low=1, high=1000)
MODELS = (
    Model(CLASSIFIER, True, "classify", "untrained", options={"top_k": TOP_K}),
    Model(TRANSLATOR, True, "translate", "untrained", options={"size": SIZE, "quality": QUALITY}),
)


@dataclass(frozen=True)
class Answer:
    """Header values are sent as they are, including bytes that are not ASCII."""

    status: int = 200
    headers: dict[str, bytes] = field(default_factory=dict)
    body: bytes = b""


class Answering:
    """An HTTP server at ``url`` that gives ``answer`` to every request but those for its models.

    ``models`` are what it lists at ``/models`` and describes at ``/readyz``; None for a server
    without these routes. ``first`` are answers to give before ``answer``. ``asked`` has the headers
    and ``paths`` the path of each other request, ``gets`` the paths of those for the models.
    """

    def __init__(self, answer: Answer, host: str = "127.0.0.1") -> None:
        self.answer = answer
        self.first: list[Answer] = []
        self.models: tuple[Model, ...] | None = MODELS
        self.draining = False
        self.asked: list[Message] = []
        self.paths: list[str] = []
        self.gets: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = LIMIT_S

            def do_POST(self) -> None:  # http.server's name
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path in ("/models", "/readyz") and outer.models is not None:
                    outer.gets.append(self.path)
                    answer = outer.described(self.path, outer.models)
                else:
                    outer.asked.append(self.headers)
                    outer.paths.append(self.path)
                    answer = outer.reply(self.path, self.headers, content)
                lines = [f"HTTP/1.1 {answer.status} Any".encode()]
                lines += [f"content-length: {len(answer.body)}".encode()]
                lines += [name.encode() + b": " + value for name, value in answer.headers.items()]
                self.wfile.write(b"\r\n".join([*lines, b"connection: close", b"", answer.body]))

            do_GET = do_POST  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://{host}:{self._server.server_port}"

    def reply(self, path: str, headers: Message, content: bytes) -> Answer:
        return self.first.pop(0) if self.first else self.answer

    def described(self, path: str, models: tuple[Model, ...]) -> Answer:
        ready = not self.draining and all(model.ready for model in models)
        if path == "/models":
            keys = ("name", "task", "weights", "ready", "options")
            report: object = {"models": [{k: asdict(m)[k] for k in keys} for m in models]}
        elif self.draining:
            report = {"ready": False, "reason": "draining"}
        else:
            states = {m.name: {"ready": m.ready, "reason": m.reason} for m in models}
            report = {"ready": ready, "models": states}
        status = 200 if ready or path == "/models" else 503
        return Answer(status, {"content-type": b"application/json"}, json.dumps(report).encode())

    @classmethod
    @contextmanager
    def started(
        cls,
        status: int = 200,
        headers: dict[str, bytes] | None = None,
        body: bytes = b"",
        host: str = "127.0.0.1",
    ) -> Iterator[Answering]:
        """``host`` is the name of this machine in ``url``."""
        with cls(Answer(status, headers or {}, body), host).listening() as server:
            yield server

    @contextmanager
    def listening(self) -> Iterator[Answering]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(LIMIT_S)
            assert not thread.is_alive()


STATUSES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class AnsweringRpc(inference_pb2_grpc.InferenceAPIsServiceServicer):  # type: ignore[misc]
    """A gRPC server at ``url`` that gives ``answer`` to every prediction.

    ``first`` are the errors to give before it, as REST has them. ``asked`` has the metadata and
    ``remaining`` the seconds until the deadline of each prediction. ``health`` knows no model yet.
    """

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.first: list[Answer] = []
        self.asked: list[dict[str, str]] = []
        self.remaining: list[float] = []
        self.health = HealthServicer()

    def Predictions(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.asked.append(dict(context.invocation_metadata()))
        self.remaining.append(context.time_remaining())
        if self.first:
            error = self.first.pop(0)
            context.set_trailing_metadata([(k, v.decode()) for k, v in error.headers.items()])
            context.abort(STATUSES[error.status], error.body.decode())
        return inference_pb2.PredictionResponse(prediction=self.answer)

    @contextmanager
    def listening(self) -> Iterator[AnsweringRpc]:
        with ThreadPoolExecutor(4) as pool:
            server = grpc.server(pool)
            inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server(self, server)
            add_HealthServicer_to_server(self.health, server)
            self.url = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            server.start()
            try:
                yield self
            finally:
                server.stop(None).wait(LIMIT_S)
