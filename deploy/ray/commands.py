"""serve: the archives of a model store on a Ray of their own, on this machine."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from pydantic import ValidationError

from deploy.ray import cluster
from deploy.ray.options import APPLICATION, Placement
from serving import machine, preflight
from serving.archives import Archive, read_archives
from serving.commands import print_addresses, print_model
from serving.config import DEFAULT_GATEWAY_MEMORY, DEFAULT_SIZE, Config
from serving.drain import drain
from serving.errors import ServingError
from serving.gateway.credentials import Credentials
from serving.plan import Options
from serving.signals import StopRequest, handled

# Seconds for a call of the front or of a model.
_CALL_TIMEOUT_S = 30
_PAUSE_S = 0.1
# Requests that are being computed when the server ends get this long, in seconds.
_DRAIN_LIMIT_S = 660


def serve(config: Config, options: Options) -> int:
    """Serve until SIGINT or SIGTERM; then answer what was accepted.

    Raises ServingError if something that a start needs is missing, or a model cannot be loaded.
    """
    config = config.select(options.models) if options.models else config
    archives = read_archives(config)
    _check(config)
    arguments = _arguments(config, archives, options)
    cpus = max(machine.count_cores(), reserved_cpus(archives, options.workers))
    host, port = config.addresses["inference_address"]
    grpc_port = config.addresses["grpc_inference_port"][1]
    metrics_port = config.addresses["metrics_address"][1]
    print("starting Ray", flush=True)
    with cluster.started(cpus, host, port, grpc_port, metrics_port):
        run(arguments)
        _announce(config, archives)
        stop = StopRequest(may_drain=True)
        with handled(stop):
            while not stop.asked:
                time.sleep(_PAUSE_S)
            # A person's Ctrl-C does not wait for balancers to notice.
            open_s = 0 if stop.by == signal.SIGINT else config.drain_seconds
            server = _Server()
            drain(stop, server.poll, server, open_s=open_s, timeout_s=_DRAIN_LIMIT_S)
    print("stopped")
    return 0


def reserved_cpus(archives: Sequence[Archive], workers: int | None) -> int:
    """What Ray reserves if all replicas run; on one machine they share the cores.

    ServingError if an archive's section ``ray`` is wrong.
    """
    cpus = 0.0
    for archive in archives:
        try:
            placement = Placement.of(archive.yaml, workers=workers)
        except ValidationError as error:
            raise ServingError(
                f"{archive.path}: its section `ray` cannot be used: {error}. Change `ray` in its "
                "network's file, and run `make archive`"
            ) from error
        cpus += placement.num_cpus * placement.max_replicas
    return math.ceil(cpus)


def _check(config: Config) -> None:
    credentials = Credentials.of(config)
    if credentials.certificate:
        raise ServingError(
            f"this server has no TLS: remove tls_certificate from {config.path}, and let a proxy "
            "in front of Ray have the certificate"
        )
    if warning := preflight.check_exposure(config, credentials, gateway=True):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    preflight.check_ports(config)


def _arguments(config: Config, archives: Sequence[Archive], options: Options) -> dict[str, Any]:
    """The arguments of the application."""
    keys = Credentials.of(config).keys
    return {
        "archives": [{"source": str(archive.path.resolve())} for archive in archives],
        "device": "gpu" if machine.count_gpus(options.device) else "cpu",
        "precision": options.precision,
        "engine": options.engine,
        "workers": options.workers,
        "threads": max(machine.count_cores() // (options.workers or 1), 1),
        "request_bytes": config.number("max_request_size", DEFAULT_SIZE),
        "memory_bytes": config.number("gateway_memory_bytes", DEFAULT_GATEWAY_MEMORY),
        "api_keys": str(keys.resolve()) if keys else None,
    }


def run(arguments: dict[str, Any]) -> None:
    """Run the application on this process's cluster, until all models answer.

    ServingError if one cannot be loaded.
    """
    from ray import serve

    from deploy.ray.application import build

    try:
        serve.run(build(arguments), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise ServingError(f"Ray Serve cannot start the models: {_reason(error)}") from error


def places(models: Collection[str]) -> dict[str, list[str]]:
    """Which of ``models`` run on which node, by its id: an entry for each running replica."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None
    details = client.get_serve_details()
    deployments = details["applications"][APPLICATION]["deployments"]
    found: dict[str, list[str]] = defaultdict(list)
    for model in models:
        for replica in deployments[model]["replicas"]:
            if replica["state"] == "RUNNING":
                found[replica["node_id"]].append(model)
    return found


def _reason(error: RuntimeError) -> str:
    """Why the first deployment failed, with its traceback."""
    from ray import serve

    application = serve.status().applications.get(APPLICATION)
    deployments = application.deployments if application else {}
    messages = (f"{name}: {each.message}" for name, each in deployments.items() if each.message)
    return next(messages, str(error))


def _announce(config: Config, archives: Sequence[Archive]) -> None:
    """Print what is served, on which devices, and where."""
    from ray import serve

    print()
    for archive in archives:
        handle = serve.get_deployment_handle(archive.model, APPLICATION)
        told = handle.describe.remote().result(timeout_s=_CALL_TIMEOUT_S)
        print_model(archive.model, told["device"], told, archive.version)
    print_addresses(config, [archive.model for archive in archives])
    print(f"health     {config.inference}/readyz")
    print(f"metrics    http://127.0.0.1:{config.addresses['metrics_address'][1]}/metrics")
    print(f"logs       {cluster.logs()}/serve")
    print("Ctrl-C stops it", flush=True)


class _Server:
    """The server as ``drain`` needs it; readiness fails from the first ``poll`` on."""

    def __init__(self) -> None:
        from ray import serve

        self._front = serve.get_app_handle(APPLICATION)
        self._refuses = False

    def poll(self) -> None:
        self.is_idle()

    def stop_accepting(self) -> None:
        self._refuses = True

    def is_idle(self) -> bool:
        """Whether every request is answered."""
        left = self._front.drain.remote(refuse=self._refuses).result(timeout_s=_CALL_TIMEOUT_S)
        return not left
