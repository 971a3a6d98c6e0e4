"""A server without a gateway: TorchServe itself on the public addresses (GATEWAY=0)."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
import requests

from serving.config import Config
from serving.logs import LogTail
from serving.management import Management
from serving.runfolder import RunFolder
from tests.routes import prediction
from tests.running import MakeConfig, serve, wait_until
from vision_client import inference_pb2

pytestmark = pytest.mark.slow

TIMEOUT_S = 60
MODEL = "resnet101"
SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"
# The field `sequence_id` of a message to StreamPredictions2.
SEQUENCE_ID = bytes([4 << 3 | 2, 1]) + b"x"


@dataclass(frozen=True)
class Bare:
    """A server of MODEL; ``said()`` is its output so far."""

    process: subprocess.Popen[bytes]
    config: Config
    run: RunFolder
    channel: grpc.Channel
    said: Callable[[], str]

    @property
    def management(self) -> Management:
        return Management.of(self.run)

    def post(self, data: bytes) -> requests.Response:
        url = f"{self.config.inference}/predictions/{MODEL}"
        return requests.post(url, data=data, timeout=TIMEOUT_S)

    def predict(self, data: bytes) -> bytes:
        """A prediction over gRPC."""
        request = prediction(MODEL, data=data).SerializeToString()
        call = self.channel.unary_unary(f"{SERVICE}/Predictions")
        answer: bytes = inference_pb2.PredictionResponse.FromString(
            call(request, timeout=TIMEOUT_S)
        ).prediction
        return answer

    def stream(self, data: bytes, open_s: float = 0.0) -> None:
        """A call of StreamPredictions2, whose answer TorchServe drops: RpcError."""

        def messages() -> Iterator[bytes]:
            yield prediction(MODEL, data=data).SerializeToString() + SEQUENCE_ID
            time.sleep(open_s)

        list(
            self.channel.stream_stream(f"{SERVICE}/StreamPredictions2")(
                messages(), timeout=TIMEOUT_S
            )
        )


@pytest.fixture(scope="module")
def bare(
    tmp_path_factory: pytest.TempPathFactory, model_store: Path, make_config: MakeConfig
) -> Iterator[Bare]:
    """The tests below share it, and the last one ends it."""
    folder = tmp_path_factory.mktemp("bare")
    path = make_config(folder, model_store, load_models=f"{MODEL}.mar")
    config, run = Config.read(path), RunFolder(folder / "run")
    with (
        serve(path, options=["--no-gateway"]) as server,
        grpc.insecure_channel(config.grpc) as channel,
    ):
        yield Bare(server.process, config, run, channel, server.said)


def test_the_start_says_what_is_lost(bare: Bare) -> None:
    assert "warning: no gateway (GATEWAY=0): no limits on connections" in bare.said()


def test_both_protocols_answer(bare: Bare, jpeg: bytes) -> None:
    rest, rpc = bare.post(jpeg).json(), json.loads(bare.predict(jpeg))
    assert len(rest["predictions"]) == 5
    assert [p["label"] for p in rest["predictions"]] == [p["label"] for p in rpc["predictions"]]
    assert bare.post(b"x").json()["type"] == "BadImage"


@pytest.mark.parametrize(
    "route",
    [f"/explanations/{MODEL}", f"/v1/models/{MODEL}:explain", f"/v2/models/{MODEL}/explain"],
)
def test_explanations_are_not_served(bare: Bare, jpeg: bytes, route: str) -> None:
    """TorchServe passes them to the handler of predictions."""
    answer = requests.post(bare.config.inference + route, data=jpeg, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.json()["type"]) == (404, "NotFound")


def test_the_id_of_an_answer_leads_to_the_workers_log(bare: Bare, jpeg: bytes) -> None:
    answer = requests.post(
        f"{bare.config.inference}/predictions/{MODEL}", data=jpeg, timeout=TIMEOUT_S
    )
    line = f"{answer.headers['x-request-id']} ok"
    wait_until(lambda: line in (bare.run.logs / "model_log.log").read_text())


def test_no_log_has_a_query_string(bare: Bare, jpeg: bytes) -> None:
    url = f"{bare.config.inference}/predictions/{MODEL}?key=secret"
    assert requests.post(url, data=jpeg, timeout=TIMEOUT_S).status_code == 200
    access_log = bare.run.logs / "access_log.log"
    line = f'"POST /predictions/{MODEL} HTTP/1.1" 200'
    wait_until(lambda: access_log.read_text().splitlines()[-1].find(line) > 0)
    assert all("secret" not in path.read_text() for path in bare.run.logs.iterdir())


def test_health_is_on_the_metrics_address(bare: Bare) -> None:
    """The canaries of a server without a gateway ask its public address."""

    def is_ready() -> bool:
        return requests.get(f"{bare.config.metrics}/readyz", timeout=TIMEOUT_S).status_code == 200

    wait_until(is_ready)


@pytest.mark.parametrize("open_s", [0, 2])
def test_a_stream_whose_answers_are_dropped_stops_no_model(
    bare: Bare, jpeg: bytes, open_s: float
) -> None:
    """TorchServe marks such a request with headers that would end the worker."""
    before = [worker.pid for worker in bare.management.workers(MODEL)]
    with ThreadPoolExecutor(12) as pool:
        rest = [pool.submit(bare.post, jpeg) for _ in range(4)]
        streams = [pool.submit(bare.stream, data, open_s) for data in [b"damaged", jpeg, b""] * 2]
        for answer in rest:
            assert answer.result().status_code == 200
            assert "ts_stream_next" not in answer.result().headers
        for stream in streams:
            error = stream.exception()
            assert isinstance(error, grpc.RpcError)
            assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    assert bare.post(jpeg).status_code == 200
    assert [worker.pid for worker in bare.management.workers(MODEL)] == before


def test_accepted_requests_are_answered_before_the_end(bare: Bare, jpeg: bytes) -> None:
    clients = 12
    log = LogTail(bare.run.logs / "ts_log.log")
    with ThreadPoolExecutor(clients + 1) as pool:
        worker = psutil.Process(bare.management.workers(MODEL)[0].pid)
        worker.suspend()
        try:
            answers = [pool.submit(bare.post, jpeg)]
            wait_until(lambda: "Flushing req.cmd PREDICT" in log.read())
            answers += [pool.submit(bare.post, jpeg) for _ in range(clients)]
            wait_until(lambda: bare.management.pending(MODEL) >= clients)
            bare.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "finishing accepted requests" in bare.said())
        finally:
            worker.resume()
        assert [answer.result().status_code for answer in answers] == [200] * (clients + 1)
    assert bare.process.wait(60) == 0
