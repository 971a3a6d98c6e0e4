"""A cluster of Ray on this machine, and what its clients see when parts of it fail or change.

Its model has one operation, and code that fails when a request asks for it: see ``tiny``.
"""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
import psutil
import pytest
from ray.cluster_utils import Cluster

from deploy.ray import application, cluster, commands
from deploy.ray.archives import ArchiveError
from deploy.ray.load import Seen, clients
from serving.canary import PICTURE
from tests.deploy import tiny
from tests.deploy.tiny import MODEL
from vision_client import inference_pb2, inference_pb2_grpc

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("servers")]

T = TypeVar("T")
HOST = "127.0.0.1"
# Longer than a replica takes to start on a busy machine.
START_S = 120.0
BATCH, QUEUE = 2, 6
YAML = (
    f"batchSize: {BATCH}\nmaxBatchDelay: 1\njobQueueSize: {QUEUE}\nresponseTimeout: 100\n"
    "handler: {precision: float32, engine: torchscript}\n"
)
# Requests that two replicas and the queue take: two batches each, and those that wait.
ROOM = 2 * 2 * BATCH + QUEUE
TWO_NODES = {"min_replicas": 2, "max_replicas": 2, "max_replicas_per_node": 1}


class Running:
    """The cluster and the application on it; ``replicas`` are process ids by the node's id."""

    def __init__(self, nodes: Cluster, folder: Path, port: int, grpc_port: int) -> None:
        self.nodes = nodes
        self.folder = folder
        self.url = f"http://{HOST}:{port}"
        self.grpc = f"{HOST}:{grpc_port}"
        self._http = httpx.Client(base_url=self.url, timeout=START_S, limits=httpx.Limits())

    def deploy(self, weights: str, ray: Mapping[str, float], sha256: str | None = None) -> None:
        """Serve an archive whose weights have that name, instead of the one before."""
        mar = tiny.write(self.folder / f"{weights}.mar", YAML, weights=weights)
        source = {"source": str(mar), "sha256": sha256, "ray": ray}
        commands.run({"archives": [source], "device": "cpu", "threads": 1})

    @property
    def replicas(self) -> dict[str, list[int]]:
        from ray.serve.context import _get_global_client

        client = _get_global_client()
        assert client is not None
        replicas = client.get_serve_details()["applications"]["vision"]["deployments"][MODEL]
        found: dict[str, list[int]] = {}
        for replica in replicas["replicas"]:
            if replica["state"] == "RUNNING":
                found.setdefault(replica["node_id"], []).append(replica["pid"])
        return found

    @property
    def pids(self) -> set[int]:
        return {pid for pids in self.replicas.values() for pid in pids}

    def post(self, fault: str = "", **headers: str) -> httpx.Response:
        return self._http.post(
            f"/predictions/{MODEL}",
            content=PICTURE,
            headers={"x-size": "64", "x-fault": fault, **headers},
        )

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not condition():
            assert time.monotonic() < deadline, self.replicas
            time.sleep(0.2)

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A head and two worker nodes; a replica on each of these."""
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        ranges = [name.format(end) for name in cluster.RANGES for end in ("MIN", "MAX")]
        for name in (*cluster.ENVIRONMENT, *cluster.PORTS, *ranges):
            patch.delenv(name, raising=False)
        patch.setenv("TMPDIR", str(folder))
        listeners = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(2)]
        ports = [listener.getsockname()[1] for listener in listeners]
        stack.close()
        with cluster.started_nodes([4, 4], HOST, *ports) as nodes:
            running = Running(nodes, folder, *ports)
            running.deploy("first", TWO_NODES)
            running.wait(lambda: running.post().status_code == 200)
            yield running
            running.close()


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    """More clients than there is room for."""
    with ThreadPoolExecutor(ROOM + 6) as threads:
        yield threads


def test_requests_beyond_the_queue_are_refused_at_once(
    running: Running, crowd: ThreadPoolExecutor
) -> None:
    sent = _submit(crowd, ROOM + 6, running.post, "sleep 2")
    while not any(each.done() for each in sent):
        time.sleep(0.01)
    with grpc.insecure_channel(running.grpc) as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        call = inference_pb2.PredictionsRequest(model_name=MODEL, input={"data": PICTURE})
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predictions(call, timeout=START_S)
    metadata: Any = {**dict(caught.value.trailing_metadata())}
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert metadata["x-error-type"] == "Overloaded"
    assert int(metadata["retry-after"]) >= 1
    answers = [each.result() for each in sent]
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 503}
    assert QUEUE <= statuses[200] <= ROOM
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["type"] == "Overloaded"
            assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("leaves", [True, False])
def test_requests_that_nobody_waits_for_make_room(
    running: Running, crowd: ThreadPoolExecutor, leaves: bool
) -> None:
    """Clients have left, or their time has passed, long before their batches end."""

    def give_up() -> int:
        if not leaves:
            return running.post("sleep 3", **{"x-timeout-ms": "500"}).status_code
        try:
            # Only the wait for the answer is limited.
            timeout = httpx.Timeout(START_S, read=0.5)
            url = f"{running.url}/predictions/{MODEL}"
            headers = {"x-fault": "sleep 3"}
            return httpx.post(url, content=PICTURE, headers=headers, timeout=timeout).status_code
        except httpx.ReadTimeout:
            return 504

    statuses = Counter(each.result() for each in _submit(crowd, ROOM + 2, give_up))
    assert statuses.keys() <= {504, 503}
    assert statuses[504] > QUEUE
    deadline = time.monotonic() + 3
    while (answer := running.post()).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answer.status_code == 200


def test_a_replica_that_ends_in_a_handler_is_replaced_and_its_requests_are_sent_again(
    running: Running, crowd: ThreadPoolExecutor, tmp_path: Path
) -> None:
    before = running.pids
    decoders = {pid: psutil.Process(pid).children() for pid in before}
    assert all(decoders.values())
    sent = _submit(crowd, 8, running.post, f"exit {tmp_path / 'ended'}")
    assert [each.result().status_code for each in sent] == [200] * 8
    running.wait(lambda: len(running.pids) == 2 and running.pids != before)
    [ended] = before - running.pids
    assert psutil.wait_procs(decoders[ended], 30)[1] == []


def test_a_crash_of_a_decoder_is_not_one_of_the_replica(running: Running) -> None:
    """It is blamed on the picture."""
    before = running.pids
    for pid in before:
        for decoder in psutil.Process(pid).children():
            decoder.send_signal(signal.SIGSEGV)
    statuses = Counter(running.post().status_code for _ in range(8))
    assert statuses.keys() == {200, 400}
    assert statuses[400] <= len(before)
    assert running.pids == before


def test_a_node_is_lost_under_load(running: Running) -> None:
    """Its requests are sent to the other node, and another node takes its place."""
    with clients(running.url, {MODEL: "translate"}, PICTURE) as seen:
        _wait_for_answers(seen[MODEL], 20)
        lost = running.nodes.worker_nodes.copy().pop()
        running.nodes.remove_node(lost, allow_graceful=False)
        _wait_for_answers(seen[MODEL], 20)
        cluster.add_node(running.nodes, 4)
        running.wait(lambda: len(running.replicas) == 2 and lost.node_id not in running.replicas)
        _wait_for_answers(seen[MODEL], 20)
    assert seen[MODEL].failed == {}
    assert seen[MODEL].retried == {}


def test_a_model_is_updated_without_a_failed_request_and_scales(
    running: Running, monkeypatch: pytest.MonkeyPatch, crowd: ThreadPoolExecutor
) -> None:
    before = running.pids
    with pytest.raises(ArchiveError, match=r"has sha256 [0-9a-f]{64}, not 0000"):
        running.deploy("wrong", TWO_NODES, sha256="0" * 64)
    assert (running.pids, running.post().headers["x-model-weights"]) == (before, "first")
    monkeypatch.setattr(application, "_HEALTH_PERIOD_S", 1)
    scaling = {
        "min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 1,
        "upscale_delay_s": 0.5, "downscale_delay_s": 2,
    }  # fmt: skip
    with clients(running.url, {MODEL: "translate"}, PICTURE) as seen:
        _wait_for_answers(seen[MODEL], 20)
        running.deploy("second", scaling)
        running.wait(lambda: running.post().headers["x-model-weights"] == "second")
        # The clients are more than one replica should have.
        running.wait(lambda: len(running.pids) == 2 and not running.pids & before)
        _wait_for_answers(seen[MODEL], 20)
    assert seen[MODEL].failed == {}
    assert seen[MODEL].retried == {}
    running.wait(lambda: len(running.pids) == 1)
    # A replica that no longer answers its canary is taken out.
    broken = running.pids
    assert running.post("break").json()["type"] == "InternalError"
    running.wait(lambda: len(running.pids) == 1 and running.pids != broken)
    running.wait(lambda: running.post().status_code == 200)


def test_killed_replicas_leave_one_unpacked_copy_of_an_archive(running: Running) -> None:
    [folder] = running.folder.glob("vision-archives-*")
    assert all((place / "content").is_dir() for place in folder.iterdir())
    assert len(list(folder.iterdir())) == 2


def _submit(
    crowd: ThreadPoolExecutor, number: int, call: Callable[..., T], *arguments: Any
) -> list[Future[T]]:
    """Calls at once, but one after the other, as Ray counts those that come together as waiting."""
    sent = []
    for _ in range(number):
        sent.append(crowd.submit(call, *arguments))
        time.sleep(0.02)
    return sent


def _wait_for_answers(seen: Seen, number: int) -> None:
    wanted = len(seen.answers) + number
    deadline = time.monotonic() + START_S
    while len(seen.answers) < wanted:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
