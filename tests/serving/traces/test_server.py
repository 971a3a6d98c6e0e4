"""A real server sends traces to a collector of ours: whose child each span is, and when it was."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import uuid4

import grpc
import pytest
import requests

from serving.config import Config
from tests.collecting import Collecting, Kept, collecting
from tests.deploy import tiny
from tests.routes import TIMEOUT_S, prediction
from tests.running import Foreground, MakeConfig, serve, stub_of, wait_until

pytestmark = pytest.mark.slow

YAML = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxBatchDelay: 500\n"
STAGES = ["decode", "preprocess", "network", "encode"]
CALL = "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
KEY = "a-key-of-a-client-0123456789"
CLIENTS_SPAN = "b7ad6b7169203331"


@dataclass(frozen=True)
class Traced:
    """A server of the model ``tiny``, and its collector."""

    config: Config
    collector: Collecting
    server: Foreground

    def post(self, data: bytes, **headers: str) -> requests.Response:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers |= {"authorization": f"Bearer {KEY}"}
        url = f"{self.config.inference}/predictions/tiny"
        return requests.post(url, data=data, headers=headers, timeout=TIMEOUT_S)

    def call(self, data: bytes, traceparent: str) -> bytes:
        metadata = [("authorization", f"Bearer {KEY}"), ("traceparent", traceparent)]
        with stub_of(self.config.grpc) as stub:
            request = prediction("tiny", data=data)
            answer = stub.Predictions(request, timeout=TIMEOUT_S, metadata=metadata)
        body: bytes = answer.prediction
        return body

    def spans(self, trace: str, count: int) -> dict[str, Kept]:
        """The ``count`` spans of ``trace`` by name, as soon as they have arrived."""
        wait_until(lambda: len(self.collector.of(trace)) >= count, 30)
        return self.collector.of(trace)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, make_config: MakeConfig) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("traces")
    store = folder / "store"
    store.mkdir()
    tiny.write(store / "tiny.mar", YAML)
    (folder / "keys.txt").touch(0o600)
    (folder / "keys.txt").write_text(f"alice: {KEY}\n")
    path = make_config(folder, store, api_keys="keys.txt", load_models="tiny.mar")
    with collecting() as (collector, url):
        shell = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_SERVICE_NAME": "pictures",
            "OTEL_BSP_SCHEDULE_DELAY": "100",  # milliseconds, instead of 5000
        }
        with serve(path, **shell) as server:
            yield Traced(Config.read(path), collector, server)


def new() -> tuple[str, str]:
    """A new trace, and the header of a client that samples it."""
    trace = uuid4().hex
    return trace, f"00-{trace}-{CLIENTS_SPAN}-01"


def check_nesting(spans: dict[str, Kept], gateway: str) -> None:
    """Each span lies in the one that it is a child of, and the stages follow one another."""
    outer, worker = spans[gateway], spans["worker"]
    assert [spans["queue"].parent, worker.parent] == [outer.id] * 2
    assert {spans[stage].parent for stage in STAGES if stage in spans} == {worker.id}
    ids = {span.id: span for span in spans.values()}
    for span in spans.values():
        assert span.period[0] <= span.period[1]
        if parent := ids.get(span.parent):
            assert parent.period[0] <= span.period[0], span
            assert span.period[1] <= parent.period[1], span
    order = ["queue", *(stage for stage in STAGES if stage in spans)]
    for earlier, later in itertools.pairwise(order):
        assert spans[earlier].period[1] <= spans[later].period[0]


def test_the_start_says_where_traces_go(traced: Traced) -> None:
    assert "traces     to http://127.0.0.1:" in traced.server.said()
    assert ", of 100 % of requests" in traced.server.said()


def test_a_request_over_rest(traced: Traced, jpeg: bytes) -> None:
    trace, header = new()
    assert traced.post(jpeg, traceparent=header, x_request_id="order-7").status_code == 200
    gateway = "POST /predictions/tiny"
    spans = traced.spans(trace, 7)
    assert set(spans) == {gateway, "queue", "worker", *STAGES}
    check_nesting(spans, gateway)
    outer, worker = spans[gateway], spans["worker"]
    assert (outer.parent, outer.scope, outer.is_server) == (CLIENTS_SPAN, "gateway", True)
    assert {
        span.attributes.get("vision.request.id") for span in (outer, spans["queue"], worker)
    } == {"order-7"}
    assert outer.attributes["http.response.status_code"] == 200
    assert outer.attributes["http.request.body.size"] == len(jpeg)
    assert worker.attributes["vision.batch.size"] == 1
    assert spans["queue"].attributes["vision.queue.waiting"] == 0
    assert not any(span.is_error for span in spans.values())
    assert traced.collector.resources[-1]["service.name"] == "pictures"


def test_a_call_over_grpc(traced: Traced, jpeg: bytes) -> None:
    """TorchServe drops a call's metadata: the worker gets the gateway's span in the message."""
    trace, header = new()
    assert traced.call(jpeg, header)
    spans = traced.spans(trace, 7)
    assert set(spans) == {CALL, "queue", "worker", *STAGES}
    check_nesting(spans, CALL)
    assert spans[CALL].parent == CLIENTS_SPAN
    assert spans[CALL].attributes["rpc.grpc.status_code"] == 0


def test_a_request_of_a_client_without_traces(traced: Traced, jpeg: bytes) -> None:
    before, id = len(traced.collector.spans), str(uuid4())
    answer = traced.post(jpeg, x_request_id=id)
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, id)
    wait_until(lambda: len(traced.collector.spans) == before + 7, 30)
    [outer] = [span for span in traced.collector.spans[before:] if span.is_server]
    assert (outer.parent, outer.attributes["vision.request.id"]) == ("", id)
    check_nesting(traced.spans(outer.trace, 7), outer.name)


def test_the_requests_of_a_batch_share_its_times(traced: Traced, jpeg: bytes) -> None:
    asked = [new() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(traced.post, jpeg, traceparent=header) for _, header in asked]
        assert [future.result().status_code for future in sent] == [200] * 4
    workers = [traced.spans(trace, 7)["worker"] for trace, _ in asked]
    together = [worker for worker in workers if worker.attributes["vision.batch.size"] == 2]
    assert together
    for worker in together:
        assert sum(other.period == worker.period for other in together) == 2


@pytest.mark.parametrize("route", ["rest", "grpc"])
def test_a_clients_error_has_its_type_and_is_no_fault(traced: Traced, route: str) -> None:
    trace, header = new()
    if route == "rest":
        assert traced.post(b"broken", traceparent=header).status_code == 400
    else:
        with pytest.raises(grpc.RpcError, match="BadImage"):
            traced.call(b"broken", header)
    spans = traced.spans(trace, 5)
    gateway = "POST /predictions/tiny" if route == "rest" else CALL
    assert set(spans) == {gateway, "queue", "worker", "decode", "encode"}
    check_nesting(spans, gateway)
    for name in (gateway, "worker"):
        assert spans[name].attributes["error.type"] == "BadImage"
        assert not spans[name].is_error


def test_a_fault_is_marked(traced: Traced, jpeg: bytes) -> None:
    trace, header = new()
    answer = traced.post(jpeg, traceparent=header, x_fault="sleep 2", x_timeout_ms="700")
    assert answer.status_code == 504
    outer = traced.spans(trace, 2)["POST /predictions/tiny"]
    assert outer.is_error
    assert outer.attributes["error.type"] == "DeadlineExceeded"


def test_a_client_that_does_not_sample_has_no_spans(traced: Traced, jpeg: bytes) -> None:
    unsampled, sampled = uuid4().hex, new()
    assert traced.post(jpeg, traceparent=f"00-{unsampled}-{CLIENTS_SPAN}-00").status_code == 200
    assert traced.call(jpeg, f"00-{unsampled}-{CLIENTS_SPAN}-00")
    assert traced.post(jpeg, traceparent=sampled[1]).status_code == 200
    traced.spans(sampled[0], 7)
    assert traced.collector.of(unsampled) == {}


def test_no_secret_and_no_probe_is_sent(traced: Traced) -> None:
    trace, header = new()
    path = f"{traced.config.inference}/predictions/tiny?key=s3cret"
    bearer = {"authorization": f"Bearer {KEY}", "traceparent": header}
    assert requests.post(path, headers=bearer, data=b"x", timeout=TIMEOUT_S).status_code == 400
    requests.get(f"{traced.config.inference}/readyz", headers=bearer, timeout=TIMEOUT_S)
    [gateway] = traced.spans(trace, 1).values()
    assert gateway.attributes["error.type"] == "BadRequest"
    assert gateway.attributes["url.path"] == "/predictions/tiny"
    assert "readyz" not in str(traced.collector.spans)
    for secret in (KEY, "s3cret"):
        assert secret not in str(traced.collector.spans)


def test_requests_are_answered_while_the_collector_is_away(traced: Traced, jpeg: bytes) -> None:
    traced.collector.status = grpc.StatusCode.UNAVAILABLE
    try:
        tried = len(traced.collector.metadata)
        traces = [new() for _ in range(3)]
        for _, header in traces:
            assert traced.post(jpeg, traceparent=header).status_code == 200
        wait_until(lambda: len(traced.collector.metadata) > tried, 30)
    finally:
        traced.collector.status = None
    for trace, _ in traces:
        traced.spans(trace, 7)
    [line] = [line for line in traced.server.said().splitlines() if "traces: " in line]
    assert "UNAVAILABLE" in line


def test_what_is_left_is_sent_at_the_end(traced: Traced, jpeg: bytes) -> None:
    trace, header = new()
    assert traced.post(jpeg, traceparent=header).status_code == 200
    traced.server.process.send_signal(signal.SIGTERM)
    assert traced.server.process.wait(60) == 0
    assert len(traced.collector.of(trace)) == 7
