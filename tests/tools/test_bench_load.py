"""The load generator against real servers on the loopback interface, in its own process."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from serving.errors import ServingError
from tools.bench.common import process
from tools.bench.load import Load, loop, measure
from vision_client import inference_pb2, inference_pb2_grpc

pytestmark = pytest.mark.slow

SERVICE_S = 0.05
PICTURE = b"a picture"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request at a time, each in SERVICE_S; the model ``broken`` with 503."""

    protocol_version = "HTTP/1.1"
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.lock:
            time.sleep(SERVICE_S)
        good = body == PICTURE and self.path == "/predictions/net"
        self.send_response(200 if good else 503)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""


class Service(inference_pb2_grpc.InferenceAPIsServiceServicer):  # type: ignore[misc]
    """Answers as TorchServe does; the model ``broken`` with an error and the status OK."""

    def Predictions(  # noqa: N802 - the service's own name
        self, request: inference_pb2.PredictionsRequest, context: grpc.ServicerContext
    ) -> inference_pb2.PredictionResponse:
        good = request.model_name == "net" and request.input["data"] == PICTURE
        body = b"{}" if good else b'{"code": 400, "type": "BadImage", "message": "damaged"}'
        return inference_pb2.PredictionResponse(prediction=body)


@pytest.fixture
def rest() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def rpc() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.jpg"
    path.write_bytes(PICTURE)
    return path


def test_a_closed_loop_over_rest(rest: str, picture: Path) -> None:
    found = measure(Load("REST", rest, "net", picture, seconds=1, clients=4))
    assert 0 < found.rate < 1.2 / SERVICE_S
    assert found.ms[0] <= found.ms[1] <= found.ms[2]


def test_an_open_loop_is_charged_for_all_who_wait(rest: str, picture: Path) -> None:
    load = Load("REST", rest, "net", picture, seconds=1, clients=32, rate=60)
    assert measure(load).ms[2] > 1e3  # three times what the server can do


def test_a_closed_loop_over_grpc(rpc: str, picture: Path) -> None:
    assert measure(Load("gRPC", rpc, "net", picture, seconds=0.3, clients=2)).rate > 0


def test_a_refused_request_is_an_error(rest: str, rpc: str, picture: Path) -> None:
    gone = "http://127.0.0.1:1"
    for url, error in ((rest, "503"), (rpc, "400 BadImage"), (gone, "no connection")):
        with pytest.raises(ServingError, match=error):
            measure(Load("all", url, "broken", picture, seconds=0, clients=1))


def test_the_warm_up_is_not_counted() -> None:
    """Every client of a closed loop finishes a request, even if that takes longer than the time."""
    sent: list[float] = []

    def send() -> str:
        sent.append(time.monotonic())
        time.sleep(0.02)
        return ""

    load = Load("", "", "", Path(), seconds=0.2, clients=2)
    assert loop([send] * 2, load).rate > 0
    assert loop([send] * 2, Load("", "", "", Path(), seconds=0.0, clients=2)).rate > 0
    assert sent


def test_a_process_that_dies_is_noticed() -> None:
    with process() as pool, pytest.raises(futures.process.BrokenProcessPool):
        pool.submit(os._exit, 3).result()
