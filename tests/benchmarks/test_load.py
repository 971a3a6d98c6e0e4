"""The load generator against real servers on the loopback interface, in processes of its own."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from benchmarks.errors import BenchError
from benchmarks.load import Load, Outcome, measure, merge, percentile, split
from benchmarks.processes import python, receive_line
from benchmarks.senders import Grpc, Rest, channel
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
        good = body == PICTURE and self.path == "/predictions/resnet101"
        self.send_response(200 if good else 503)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""


class Service(inference_pb2_grpc.InferenceAPIsServiceServicer):  # type: ignore[misc]
    """Answers as TorchServe does: good, an error among good answers, and a failed batch."""

    def Predictions(  # noqa: N802 - the service's own name
        self, request: inference_pb2.PredictionsRequest, context: grpc.ServicerContext
    ) -> inference_pb2.PredictionResponse:
        if request.model_name == "broken":
            context.abort(grpc.StatusCode.UNAVAILABLE, "no room")
        good = request.model_name == "resnet101" and request.input["data"] == PICTURE
        body = b"{}" if good else b'{"code": 400, "type": "BadImage", "message": "..."}'
        return inference_pb2.PredictionResponse(prediction=body)


@pytest.fixture
def rest() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def rpc() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.jpg"
    path.write_bytes(PICTURE)
    return str(path)


def test_closed_loop_over_rest(rest: str, picture: str) -> None:
    found = measure(Load("rest", rest, "resnet101", picture, seconds=1, warm=0.2, clients=4))
    assert found.errors == {}
    assert 0 < found.throughput < 1.2 / SERVICE_S
    assert 0 < found.cpu < 1
    assert found.latencies == sorted(found.latencies)


def test_open_loop_over_rest(rest: str, picture: str) -> None:
    found = measure(Load("rest", rest, "resnet101", picture, seconds=1, warm=0, rate=60))
    assert found.errors == {}
    assert found.grows
    assert found.p99 > 1e3  # three times what the server can do


def test_closed_loop_over_grpc(rpc: str, picture: str) -> None:
    found = measure(Load("grpc", rpc, "resnet101", picture, seconds=0.3, warm=0.1, clients=2))
    assert found.errors == {}
    assert found.throughput > 0


def test_a_refused_request_is_an_error(rest: str, rpc: str) -> None:
    for model, expected in (("resnet101", ""), ("broken", "503")):
        with contextlib.closing(Rest(rest, model)) as send:
            assert send(PICTURE) == expected
    with channel(rpc) as shared:
        assert Grpc(shared, "resnet101")(PICTURE) == ""
        assert Grpc(shared, "resnet101")(b"another") == "400"
        assert Grpc(shared, "broken")(PICTURE) == "UNAVAILABLE"


def test_a_server_that_is_gone_is_an_error() -> None:
    assert Rest("127.0.0.1:1", "resnet101")(PICTURE) == "ConnectionRefusedError"


def test_a_generator_that_dies_is_told() -> None:
    with python("benchmarks.no_such_module") as child, pytest.raises(BenchError, match="status 1"):
        receive_line(child)


def test_a_load_is_split_whole() -> None:
    load = Load("rest", "127.0.0.1:1", "resnet101", "photo.jpg", seconds=1, warm=0, clients=7)
    assert [part.clients for part in split(load, 3)] == [3, 2, 2]
    assert len(split(load, 10)) == 7
    parts = split(Load("rest", "a", "b", "c", seconds=1, warm=0, rate=9.0), 3)
    assert [part.rate for part in parts] == [3.0, 3.0, 3.0]
    assert len({part.seed for part in parts}) == 3


def test_outcomes_of_side_by_side_add_up() -> None:
    one = Outcome([1.0, 3.0], 2.0, {"503": 1}, 0.2, (1.0, 2.0))
    two = Outcome([2.0], 1.0, {"503": 2, "500": 1}, 0.9, (0.5, 0.5))
    both = merge([one, two])
    assert both == Outcome([1.0, 2.0, 3.0], 3.0, {"503": 3, "500": 1}, 0.9, (1.5, 2.5))
    assert both.bottleneck
    assert not one.bottleneck


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(i) for i in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert percentile([7.0], 0.5) == 7.0
    assert percentile([], 0.5) != percentile([], 0.5)  # NaN
