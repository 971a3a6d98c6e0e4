"""A Ray of its own on this machine, with Ray Serve's proxies."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from serving.errors import ServingError
from serving.sockets import free_ports

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

ROOT = Path(__file__).parents[2]
# Of the Ray that was started last on this machine.
LATEST_LOGS = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray/session_latest/logs")
GRPC_SERVICES = [
    "vision_client.inference_pb2_grpc.add_InferenceAPIsServiceServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
]
# For every process of Ray, which reads them when it starts; the shell's come first.
ENVIRONMENT = {
    # HAProxy instead of Ray's own proxy, which takes 10 ms of a core for each request and listens
    # for gRPC on every interface.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # Seconds until a client that stops in the middle of a request is disconnected.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    # Replicas of the front are drained by our own command.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    # Seconds for the proxy to start, and to say that it is well: on a busy machine it takes more
    # than Ray's 5 and 10, and Ray would kill it.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    # Seconds for a node to start; a busy machine takes more than Ray's 30.
    "RAY_raylet_start_wait_time_s": "60",
    # Bytes of a message between the front and a replica; Ray's 4 MiB are less than a picture.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**26),
    # Ray runs the code of whoever reaches its ports. By default they are open to the network on
    # Linux; this asks for what Ray does on other systems, where they are on loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # What nodes and processes say when they end is in Ray's logs, not on the terminal.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # Ray would run the replicas at a lower priority than every other process of the machine.
    "RAY_worker_niceness": "0",
    # Nothing is sent to the makers of Ray.
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Ports inside the server, at free numbers: Ray's are the same for every server of a machine.
PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)
# Of the replicas of the front. Two servers could share one for gRPC, and each other's calls.
RANGES = ("RAY_SERVE_DIRECT_INGRESS_{}_HTTP_PORT", "RAY_SERVE_DIRECT_INGRESS_{}_GRPC_PORT")
RANGE = 20
ATTEMPTS = 2


def prepare_environment() -> None:
    """Set ENVIRONMENT, PORTS and RANGES; call it before ``ray`` is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    names = [*PORTS, *(name.format("MIN") for name in RANGES)]
    for name, port in zip(names, free_ports(len(names), ""), strict=True):
        os.environ.setdefault(name, str(port))
    for name in RANGES:
        low = int(os.environ[name.format("MIN")])
        os.environ.setdefault(name.format("MAX"), str(min(low + RANGE, 65535)))


@contextlib.contextmanager
def started(cpus: int, host: str, port: int, grpc_port: int, metrics_port: int) -> Iterator[None]:
    """Ray with ``cpus`` logical CPUs, and Serve on the first two ports, until the block ends.

    Ray's own ports are on loopback, with the metrics of everything on ``metrics_port``; those that
    Serve chooses are not. ServingError if Ray cannot start.
    """
    prepare_environment()
    options = {
        "num_cpus": cpus,
        "include_dashboard": False,
        "_metrics_export_port": metrics_port,
    }
    # "local": never somebody's cluster
    with _connected("local", options), _serving(host, port, grpc_port):
        yield


@contextlib.contextmanager
def started_nodes(cpus: Sequence[int], host: str, port: int, grpc_port: int) -> Iterator[Cluster]:
    """The same with a head, which has the proxy, and a worker node for each of ``cpus``.

    Nodes can be added and removed. No file of Ray's remains.
    """
    prepare_environment()
    from ray.cluster_utils import Cluster

    with _own_folder():
        cluster = Cluster()
        try:
            add_node(cluster, 0, include_dashboard=False)
            for each in cpus:
                add_node(cluster, each)
            with _connected(cluster.address, {}), _serving(host, port, grpc_port):
                yield cluster
        finally:
            cluster.shutdown()


def logs() -> Path:
    """The folder of the logs of Ray, inside ``started`` or ``started_nodes``."""
    from ray._private.worker import global_worker

    assert global_worker.node is not None
    return Path(global_worker.node.get_logs_dir_path())


def add_node(cluster: Cluster, cpus: int, **options: Any) -> None:
    """Add a node with ``cpus`` logical CPUs. ServingError if it does not start, twice."""
    before = set(psutil.Process().children())

    def kill_new() -> None:  # Ray leaves what it has started
        for child in set(psutil.Process().children()) - before:
            child.kill()

    _start(functools.partial(cluster.add_node, num_cpus=cpus, **options), kill_new)


@contextlib.contextmanager
def _own_folder() -> Iterator[None]:
    """Sessions of Ray that start in the block have their files in a folder that is then removed."""
    before = os.environ.get("RAY_TMPDIR")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a short path: it has sockets
    os.environ["RAY_TMPDIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_TMPDIR"]
        else:
            os.environ["RAY_TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _connected(address: str, options: dict[str, Any]) -> Iterator[None]:
    import ray

    connect = functools.partial(
        ray.init,
        address,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        **options,
    )
    _start(connect, ray.shutdown)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _serving(host: str, port: int, grpc_port: int) -> Iterator[None]:
    from ray import serve
    from ray.serve.config import HTTPOptions, gRPCOptions

    # What it says of a start is normal, in words for developers of Ray.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options=HTTPOptions(host=host, port=port),
            grpc_options=gRPCOptions(
                port=grpc_port, grpc_servicer_functions=GRPC_SERVICES, enable_reflection=False
            ),
        )
        yield
    finally:
        serve.shutdown()


def _start(start: Callable[[], object], undo: Callable[[], object]) -> None:
    """Call ``start``, and once more if it fails; ``undo`` removes what a failed one has left.

    ServingError if it fails twice: a busy machine may take longer than Ray waits.
    """
    # That Ray has made a token is normal.
    setup = "ray._private.authentication.authentication_token_setup"
    logging.getLogger(setup).setLevel(logging.ERROR)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            start()
            return
        except BaseException as error:
            undo()
            if not isinstance(error, Exception):  # Ctrl-C
                raise
            if attempt == ATTEMPTS:
                raise ServingError(
                    f"Ray cannot start: {error} Ray's logs: {LATEST_LOGS}"
                ) from error
