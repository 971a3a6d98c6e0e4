"""A server without a gateway: TorchServe itself on the public addresses (GATEWAY=0)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import requests

from serving import rollout_commands
from serving.errors import ServingError
from serving.logs import LogTail
from tests.routes import TIMEOUT_S, Server, post, prediction
from tests.running import wait_until
from tests.served import Bare, held

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("served", ["bare"], indirect=True),
]

MODEL = "resnet101"
SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"
# The field `sequence_id` of a message to StreamPredictions2.
SEQUENCE_ID = bytes([4 << 3 | 2, 1]) + b"x"


@pytest.fixture
def bare(served: Server) -> Bare:
    """The tests below share it, and the last one ends it."""
    assert isinstance(served, Bare)
    return served


def test_a_rollout_needs_the_gateway(bare: Bare) -> None:
    with pytest.raises(ServingError, match=r"without the gateway .* there is no rollout"):
        rollout_commands.roll_out(bare.run, MODEL, bare.config.archives[0], 1.0)


def stream(bare: Bare, data: bytes, open_s: float) -> None:
    """A call of StreamPredictions2, whose answer TorchServe drops: RpcError."""

    def messages() -> Iterator[bytes]:
        yield prediction(MODEL, data=data).SerializeToString() + SEQUENCE_ID
        time.sleep(open_s)

    with grpc.insecure_channel(bare.grpc_address) as channel:
        method = channel.stream_stream(f"{SERVICE}/StreamPredictions2")
        list(method(messages(), timeout=TIMEOUT_S))


def test_the_start_says_what_is_lost(bare: Bare) -> None:
    assert "warning: no gateway (GATEWAY=0): no limits on connections" in bare.said()


@pytest.mark.parametrize(
    "route",
    [f"/explanations/{MODEL}", f"/v1/models/{MODEL}:explain", f"/v2/models/{MODEL}/explain"],
)
def test_explanations_are_not_served(bare: Bare, jpeg: bytes, route: str) -> None:
    """TorchServe passes them to the handler of predictions."""
    answer = requests.post(bare.rest + route, data=jpeg, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.json()["type"]) == (404, "NotFound")


def test_no_log_has_a_query_string(bare: Bare, jpeg: bytes) -> None:
    url = bare.url(f"{MODEL}?key=secret")
    assert requests.post(url, data=jpeg, timeout=TIMEOUT_S).status_code == 200
    access_log = bare.run.logs / "access_log.log"
    line = f'"POST /predictions/{MODEL} HTTP/1.1" 200'
    wait_until(lambda: access_log.read_text().splitlines()[-1].find(line) > 0)
    assert all("secret" not in path.read_text() for path in bare.run.logs.iterdir())


@pytest.mark.parametrize("open_s", [0, 2])
def test_a_stream_whose_answers_are_dropped_stops_no_model(
    bare: Bare, jpeg: bytes, open_s: float
) -> None:
    """TorchServe marks such a request with headers that would end the worker."""
    before = bare.workers(MODEL)
    with ThreadPoolExecutor(12) as pool:
        rest = [pool.submit(post, bare, MODEL, data=jpeg) for _ in range(4)]
        streams = [pool.submit(stream, bare, data, open_s) for data in [b"damaged", jpeg, b""] * 2]
        for answer in rest:
            assert answer.result().status_code == 200
            assert "ts_stream_next" not in answer.result().headers
        for call in streams:
            error = call.exception()
            assert isinstance(error, grpc.RpcError)
            assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    assert post(bare, MODEL, data=jpeg).status_code == 200
    assert bare.workers(MODEL) == before


def test_accepted_requests_are_answered_before_the_end(bare: Bare, jpeg: bytes) -> None:
    clients = 12
    log = LogTail(bare.run.logs / "ts_log.log")
    with ThreadPoolExecutor(clients + 1) as pool:
        with held(bare, MODEL):
            answers = [pool.submit(post, bare, MODEL, data=jpeg)]
            wait_until(lambda: "Flushing req.cmd PREDICT" in log.read())
            answers += [pool.submit(post, bare, MODEL, data=jpeg) for _ in range(clients)]
            wait_until(lambda: bare.management.pending(MODEL) >= clients)
            bare.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "finishing accepted requests" in bare.said())
        assert [answer.result().status_code for answer in answers] == [200] * (clients + 1)
    assert bare.process.wait(60) == 0
