"""A Ray of its own on this machine, with Ray Serve's proxies."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from serving.errors import ServingError

ROOT = Path(__file__).parents[2]
LOGS = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray/session_latest/logs")
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
    # Bytes of a message between the front and a replica; Ray's 4 MiB are less than a picture.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**26),
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


def prepare_environment() -> None:
    """Set ENVIRONMENT, PORTS and RANGES; call it before ``ray`` is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with contextlib.ExitStack() as probes:
        for name in PORTS:
            os.environ.setdefault(name, str(_free_port(probes)))
        for name in RANGES:
            low = int(os.environ.setdefault(name.format("MIN"), str(_free_port(probes))))
            os.environ.setdefault(name.format("MAX"), str(min(low + RANGE, 65535)))


def _free_port(probes: contextlib.ExitStack) -> int:
    """A free port, which is taken until the end of ``probes``."""
    probe = probes.enter_context(socket.socket())
    probe.bind(("", 0))
    return int(probe.getsockname()[1])


def logs() -> Path:
    """The folder of the logs of this process's Ray. The link LOGS is the latest one's."""
    from ray._private.worker import global_worker

    node = global_worker.node
    assert node is not None, "Ray does not run"
    return Path(node.get_logs_dir_path())


@contextlib.contextmanager
def started(cpus: int, host: str, port: int, grpc_port: int) -> Iterator[None]:
    """Ray with ``cpus`` logical CPUs, and Serve on the two ports, until the end of the block."""
    prepare_environment()
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions, gRPCOptions

    # What these say is normal, in words for developers of Ray.
    for name in ("ray.serve", "ray._private.authentication.authentication_token_setup"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        ray.init(
            "local",  # never somebody's cluster
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        )
    except Exception as error:
        raise ServingError(
            f"Ray cannot start: {error} A busy machine may need a second attempt; {LOGS} has Ray's "
            "logs"
        ) from error
    try:
        serve.start(
            http_options=HTTPOptions(host=host, port=port),
            grpc_options=gRPCOptions(
                port=grpc_port, grpc_servicer_functions=GRPC_SERVICES, enable_reflection=False
            ),
        )
        yield
    finally:
        serve.shutdown()
        ray.shutdown()
