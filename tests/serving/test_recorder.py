"""What the gateway, the queue and the workers report, as series."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import socketserver
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from handlers.reports import Reports
from handlers.stages import Stages
from serving.gateway.access_log import Ended
from serving.metrics.exposition import Metrics
from serving.metrics.outcomes import STATUS, outcome
from serving.metrics.recorder import Recorder
from serving.metrics.series import Series
from serving.metrics.workers import Memory, Reported
from serving.sockets import Sockets

SERVES = {
    "task": "classify",
    "weights": "w",
    "precision": "float32",
    "engine": "torchscript",
    "device": "cuda:0",
    "version": "1.0",
}


class Case:
    """A recorder of the model ``a``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reported = Reported()
        self.recorder = Recorder(Series(self.registry, {"a": "1.0"}, gateway=True), self.reported)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"vision_{name}", labels)

    def requests(self) -> dict[tuple[str, ...], float]:
        """The requests that were counted, by model, version, protocol, code and error."""
        (family,) = [f for f in self.registry.collect() if f.name == "vision_requests"]
        names = ("model", "version", "protocol", "code", "error")
        return {tuple(s.labels[n] for n in names): s.value for s in family.samples if s.value}


@pytest.fixture
def case() -> Case:
    return Case()


def ended(
    status: int = 200,
    error: str = "",
    *,
    model: str = "a",
    version: str = "",
    grpc: str | None = None,
    seconds: float | None = 0.2,
) -> Ended:
    """``grpc`` is the status of a gRPC call."""
    return Ended(model, version, grpc is not None, status, grpc or "", error, seconds)


@pytest.mark.parametrize(
    ("request_", "code", "error"),
    [
        (ended(), "200", ""),
        (ended(grpc="0"), "200", ""),
        (ended(400, "BadImage"), "400", "BadImage"),
        (ended(grpc="3", error="BadImage"), "400", "BadImage"),
        (ended(grpc="0", error="BadImage"), "400", "BadImage"),
        (ended(431, "TooLarge"), "413", "TooLarge"),
        (ended(grpc="8", error="WorkerDied"), "507", "WorkerDied"),
        (ended(507), "507", "WorkerDied"),
        (ended(500), "500", "Other"),
        (ended(418, "Teapot"), "500", "Other"),
        (ended(grpc="2"), "500", "Other"),
        (ended(0), "499", "ClientLeft"),
        (ended(grpc=""), "499", "ClientLeft"),
        (ended(0, grpc=""), "499", "ClientLeft"),
    ],
)
def test_an_outcome(request_: Ended, code: str, error: str) -> None:
    assert outcome(request_) == (code, error)


def test_strangers_names_become_no_labels(case: Case) -> None:
    before = sum(len(family.samples) for family in case.registry.collect())
    for name in ("x", "y", "a/../b", "\n", "b" * 300):
        case.recorder.ended(ended(404, "ModelNotFound", model=name))
        case.recorder.ended(ended(500, f"Error{name}", model=name, grpc="13"))
        case.recorder.ended(ended(200, model=name, version=name))
        case.recorder.report({"model": name, "batches": [{"requests": 1}]})
    assert case.requests() == {
        ("", "", "rest", "404", "ModelNotFound"): 5,
        ("", "", "grpc", "500", "Other"): 5,
    }
    assert sum(len(family.samples) for family in case.registry.collect()) == before


def test_every_known_outcome_is_zero_from_the_start(case: Case) -> None:
    for error, code in STATUS.items():
        for protocol in ("rest", "grpc"):
            labels = {"model": "a", "protocol": protocol, "code": code, "error": error}
            for version in ("", "1.0"):
                assert case.value("requests_total", version=version, **labels) == 0


def test_only_successes_have_a_duration(case: Case) -> None:
    case.recorder.ended(ended(seconds=0.2, version="1.0"))
    case.recorder.ended(ended(503, "Overloaded", seconds=0.001))
    case.recorder.ended(ended(seconds=None, version="1.0"))
    labels = {"model": "a", "version": "1.0", "protocol": "rest"}
    assert case.value("request_duration_seconds_count", **labels) == 1
    assert case.value("request_duration_seconds_sum", **labels) == pytest.approx(0.2)


def test_versions_are_told_apart(case: Case) -> None:
    case.recorder.ended(ended(version="1.0"))
    case.recorder.ended(ended(version="2.0"))
    case.recorder.ended(ended(500, "InternalError", version="2.0"))
    assert case.requests() == {
        ("a", "1.0", "rest", "200", ""): 1,
        ("a", "2.0", "rest", "200", ""): 1,
        ("a", "2.0", "rest", "500", "InternalError"): 1,
    }


def test_a_workers_reports_arrive(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "reports"
    reports = Reports(str(path), "a", SERVES, torch.device("cpu"))
    stages = Stages()
    stages.seconds["network"], stages.pixels = 0.25, 50_176

    async def run() -> None:
        reports.add(stages, 1, {"crash": 1})  # nobody listens: it comes with the next one
        with case.recorder.listening(path):
            reports.add(stages, 3, {})
            while not case.value("batch_requests_count", model="a"):
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert case.value("batch_requests_count", model="a") == 2
    assert case.value("batch_requests_sum", model="a") == 4
    assert case.value("network_pixels_total", model="a") == 100_352
    assert case.value("stage_seconds_sum", model="a", stage="network") == 0.5
    assert case.value("decode_processes_ended_total", model="a", reason="crash") == 1
    assert case.reported.serves() == {("a", *SERVES.values())}
    assert case.reported.memory() == {}


def test_unsent_batches_are_bounded_and_fit_a_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "reports")
    reports = Reports(path, "a", SERVES, torch.device("cpu"))
    for requests in range(1000):
        reports.add(Stages(), requests, {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(10)
        reports.add(Stages(), 1000, {})
        batches = json.loads(receiver.recv(2**18))["batches"]
    assert [batch["requests"] for batch in batches] == list(range(801, 1001))


def test_what_is_traced_is_sent_once_or_never(tmp_path: Path) -> None:
    path = str(tmp_path / "reports")
    reports = Reports(path, "a", SERVES, torch.device("cpu"))
    reports.add(Stages(), 1, {}, {"requests": ["first"]})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(10)
        reports.add(Stages(), 1, {}, {"requests": ["second"]})
        batches = json.loads(receiver.recv(2**18))["batches"]
    assert [batch.get("traced") for batch in batches] == [None, {"requests": ["second"]}]


def report(process: int, **changes: Any) -> dict[str, Any]:
    memory = {"used": 5, "total": 8}
    return {"process": process, "model": "a", "serves": SERVES, "memory": memory} | changes


def test_what_dead_workers_served_is_forgotten(case: Case) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    case.reported.update(report(dead.pid, serves={**SERVES, "version": "0.9"}))
    case.reported.update(report(os.getpid()))
    case.reported.update(report(os.getpid()))
    assert case.reported.serves() == {("a", *SERVES.values())}
    assert case.reported.memory() == {"cuda:0": Memory(used=5, total=8)}


@pytest.mark.parametrize("gateway", [True, False])
def test_a_process_that_does_not_answer_is_named(tmp_path: Path, gateway: bool) -> None:
    sockets = Sockets(tmp_path)

    class Source(BaseHTTPRequestHandler):
        """TorchServe's metrics."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ts_requests_total 3.0")

        def log_message(self, *_: object) -> None: ...

    class Server(socketserver.UnixStreamServer):
        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            return self.socket.accept()[0], ("", 0)

    with Server(str(sockets.metrics), Source) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            text = asyncio.run(Metrics(sockets, {"a": "1.0"}, gateway=gateway).text()).decode()
        finally:
            server.shutdown()
            thread.join()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    complete = families["vision_exposition_complete"].samples
    found = {sample.labels["process"]: sample.value for sample in complete}
    assert found == {"torchserve": 1.0} | ({"gateway": 0.0} if gateway else {})
    assert ("vision_requests" in families) == ("vision_queue_wait_seconds" in families) == gateway
    assert "vision_stage_seconds" in families
    assert not any(name.endswith("_created") for name in families)
    assert families["ts_requests_total"].samples[0].value == 3.0
