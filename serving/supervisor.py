"""Starts TorchServe and the gateway, keeps them running and the models answering, ends them."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import httpx

from serving.actions import Action, Actions, say
from serving.canary import Canary
from serving.control import Control
from serving.drain import drain
from serving.errors import ServingError
from serving.gateway.process import Gateway
from serving.health import Health
from serving.held import hold
from serving.loading import Loader
from serving.management import Management
from serving.metrics.exposition import Metrics
from serving.metrics.recorder import Recorder, ignore
from serving.metrics.state import State
from serving.plan import Plan
from serving.restarts import Restarts
from serving.rollout import Rollouts
from serving.runfolder import RunFolder
from serving.signals import Stopped, StopRequest, handled
from serving.sockets import Sockets, free_ports
from serving.torchserve import TorchServe
from serving.versions import Served
from serving.watchdog import Watchdog
from serving.workers import Workers

if TYPE_CHECKING:
    from serving.traces.service import Traces

POLL_S = 0.25
# The pauses between reads of the gateway's credentials, and between the watchdog's checks.
REFRESH_S = 1.0
CHECK_S = 1.0
# After the last answer, so that Envoy reports its spans.
TRACES_S = 0.5


class Supervisor:
    """A server that starts or runs; ``running`` creates one and ends it."""

    def __init__(self, plan: Plan, run: RunFolder, sockets: Sockets, stop: StopRequest) -> None:
        self.plan = plan
        self.run = run
        self.stop = stop
        self.health = Health({planned.key: planned.workers for planned in plan.models})
        self.served = Served(plan.models, self.health.is_ready)
        self.management = Management.of(run)
        self._held = hold(sockets.store, [planned.archive for planned in plan.models])
        self.torchserve = TorchServe(plan, run, sockets, self.served)
        self.traces = _make_traces(plan)
        traced = self.traces.batch if self.traces else ignore
        metrics = Metrics(
            sockets,
            {each.model: each.version for each in plan.models},
            gateway=plan.gateway,
            traced=traced,
        )
        self.gateway = _make_gateway(
            plan, run, sockets, self.served, self.health, metrics.recorder, self.traces
        )
        self.workers = Workers(
            self.served,
            self.management,
            self.health,
            f"{run.logs}/model_log.log",
            metrics.recorder.lost,
        )
        metrics.watch(
            State(
                self.health,
                self.gateway.queues if self.gateway else {},
                metrics.reported,
                lambda: self.workers.by_key,
                self.gateway.expiries if self.gateway else dict,
            )
        )
        canary = Canary(plan, run, sockets)
        loader = Loader(run, self.served, self.health, self.management, self._held)
        rollouts = Rollouts(plan, loader) if plan.gateway else None
        handlers = self.gateway.handlers if self.gateway else []
        handlers += [self.traces.handler] if self.traces else []
        waiting = self.gateway.waiting if self.gateway else None
        self._control = Control(
            plan, sockets, self.served, self.health, metrics, canary, rollouts, handlers, waiting
        )
        self._actions = Actions(metrics.series.actions)
        self._watchdog = Watchdog(self._wanted, self.management, self.health, self._actions)
        self._torchserve_restarts = Restarts(
            self.torchserve, "TorchServe", f"{run.logs}/ts_log.log", self._actions,
            Action.RESTART_TORCHSERVE,
        )  # fmt: skip
        if self.gateway:
            self._gateway_restarts = Restarts(
                self.gateway, "the gateway", str(run.logs), self._actions, Action.RESTART_GATEWAY
            )
        self._refreshed = self._checked = 0.0
        self._fault = ""

    def start(self) -> None:
        """Start every process; ServingError if one cannot be started."""
        self._control.start()
        self.torchserve.start()
        if self.gateway:
            self.gateway.start()

    def check_starting(self) -> None:
        """Read the state of the workers while the server starts.

        Raises Stopped if a signal has come, ServingError if a process has ended.
        """
        self.stop.check()
        if self.torchserve.ended() is not None:
            last = "\n".join(self.torchserve.output().splitlines()[-5:])
            raise ServingError(f"TorchServe ended while starting:\n{last}")
        if self.gateway and self.gateway.ended() is not None:
            raise ServingError(f"the gateway ended while starting: see {self.run.logs}")
        self.workers.poll(self.torchserve.logs.ts, announce=False)

    def supervise(self) -> NoReturn:
        """Keep every model answering until a signal.

        Raises Stopped when all accepted requests are answered; ServingError if a process ends again
        and again.
        """
        self.stop.may_drain = True
        while not self.stop.asked:
            self.poll()
            time.sleep(POLL_S)
        self.health.draining = True
        # After Ctrl-C there is no load balancer to wait for.
        open_s = 0 if self.stop.by == signal.SIGINT else self.plan.config.drain_seconds
        drain(self.stop, self.poll, self, open_s=open_s, timeout_s=self.plan.response_timeout)
        if self.traces and not self.stop.immediate:
            time.sleep(TRACES_S)
        raise Stopped

    def poll(self) -> None:
        """Check every process once, and repair what is wrong."""
        now = time.monotonic()
        if self._torchserve_restarts.poll():
            self._look_at_torchserve(now)
        else:
            self.workers.reset()
            self.health.lose("TorchServe is started again")
        if self.gateway and self._gateway_restarts.poll() and now - self._refreshed >= REFRESH_S:
            self._refreshed = now
            self._refresh(self.gateway)
        self.run.bound_logs()

    def _refresh(self, gateway: Gateway) -> None:
        """Apply changed credentials. A fault is printed once; the last good files stay in use."""
        fault = ""
        try:
            gateway.refresh()
        except ServingError as error:
            fault = str(error)
        if fault and fault != self._fault:
            say(fault)
        self._fault = fault

    def _look_at_torchserve(self, now: float) -> None:
        self.workers.poll(self.torchserve.logs.ts, announce=not self.stop.asked)
        if self.workers.is_deaf:
            self._torchserve_restarts.replace(
                self.torchserve.kill, "does not answer its management API"
            )
        elif now - self._checked >= CHECK_S:
            self._checked = now
            self._watchdog.check(self.workers.activity.workers, self.workers.by_key)

    def stop_accepting(self) -> None:
        """Close the public listeners; without a gateway they stay open."""
        if self.gateway:
            with contextlib.suppress(ServingError):
                self.gateway.stop_accepting()

    def is_idle(self) -> bool:
        """Whether no accepted request waits for its answer."""
        try:
            if self.gateway:
                return self.gateway.active_requests() == 0
            waiting = sum(map(self.management.pending, self.plan.names))
        except (ServingError, httpx.HTTPError):
            return False
        return not waiting and not self.workers.activity.busy

    def end(self) -> None:
        """End every process."""
        self.health.draining = True  # a rollout that loads gives up
        if self.gateway:
            self.gateway.end()
        self.torchserve.end()
        if self.traces:
            self.traces.close()
        self._control.end()
        self._held.close()

    def _wanted(self) -> dict[str, int]:
        return {key: planned.workers for key, planned in self.served.watched.items()}


@contextlib.contextmanager
def running(plan: Plan, run: RunFolder) -> Iterator[Supervisor]:
    """A server, started as ``plan`` says and ended on the way out.

    Raises Stopped after SIGINT, SIGTERM or SIGHUP. A request to the management API that fails in
    the body becomes a ServingError, unless it failed because of such a signal.
    """
    stop = StopRequest()
    with (
        handled(stop),
        # Paths of sockets must be short. The folder is 0700.
        tempfile.TemporaryDirectory(prefix="torchserve-", ignore_cleanup_errors=True) as temporary,
        contextlib.ExitStack() as at_the_end,
    ):
        sockets = Sockets(Path(temporary), *free_ports(2))
        at_the_end.callback(run.clear_state)
        run.link(sockets)
        server = Supervisor(plan, run, sockets, stop)
        at_the_end.callback(server.end)
        try:
            stop.terminate = server.torchserve.terminate
            run.write_state(plan.config, ready=False)
            server.start()
            yield server
        except (ServingError, httpx.HTTPError) as error:
            stop.check()
            if isinstance(error, ServingError):
                raise
            raise ServingError(f"TorchServe does not answer its own tools: {error}") from error


def _make_gateway(
    plan: Plan,
    run: RunFolder,
    sockets: Sockets,
    served: Served,
    health: Health,
    recorder: Recorder,
    traces: Traces | None,
) -> Gateway | None:
    if not plan.gateway:
        return None
    return Gateway(
        plan,
        run,
        sockets,
        served,
        health.down_for,
        health.succeeded,
        recorder.waited,
        recorder.ended,
        traces,
    )


def _make_traces(plan: Plan) -> Traces | None:
    if plan.traces is None:
        return None
    try:
        made: Traces = import_module("serving.traces.service").Traces()
    except Exception as error:
        raise ServingError(
            f"traces cannot be sent: {error}; check the OTEL_... variables"
        ) from error
    return made
