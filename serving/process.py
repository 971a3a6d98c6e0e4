"""TorchServe as a child process: started, watched, drained and stopped with all of its workers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import requests

from serving.errors import ServingError
from serving.logs import ServerLogs, changed_models, is_working
from serving.management import Management, Worker
from serving.plan import Plan
from serving.runfolder import RunFolder

# The time for accepted requests after the first signal; TorchServe itself would drop them.
DRAIN_TIMEOUT_S = 20
# TorchServe stops within seconds; after this time it is killed.
STOP_TIMEOUT_S = 20
POLL_S = 0.25
LOG_TAIL_BYTES = 2**18
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Stopped(Exception):
    """A signal asked to stop."""


@dataclass
class StopRequest:
    """Records stop signals.

    The handler only sets flags and terminates TorchServe; an exception raised in it could surface
    inside any lock or finalizer. Whatever waits for TorchServe then returns at once, calls
    ``check`` and raises Stopped. If ``may_drain``, the first signal lets the server finish the
    requests that it has accepted; the second ends it immediately.
    """

    asked: bool = False
    immediate: bool = False
    may_drain: bool = False
    terminate: Callable[[], object] = lambda: None

    def receive(self, _number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        self.immediate = self.asked or not self.may_drain
        self.asked = True
        if self.immediate:
            self.terminate()

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.asked:
            raise Stopped


@dataclass(frozen=True)
class Process:
    """A TorchServe that was started; ``running`` makes one and ends it."""

    plan: Plan
    run: RunFolder
    logs: ServerLogs
    management: Management
    stop: StopRequest
    child: subprocess.Popen[bytes]

    def check_alive(self) -> None:
        """Raise Stopped if a signal has come, ServingError if TorchServe has ended."""
        self.stop.check()
        if self.child.poll() is not None:
            log = self.logs.ts.read() + self.run.java_log.read_text(errors="replace")
            last = "\n".join(log.splitlines()[-5:])
            raise ServingError(f"TorchServe ended while starting:\n{last}")

    def wait(self, ready: Mapping[str, Sequence[Worker]]) -> NoReturn:
        """Report workers that are lost or replaced until TorchServe ends.

        ``ready`` are the workers of each model. Raises Stopped after a signal, when all accepted
        requests are answered, else ServingError.
        """
        self.stop.may_drain = True
        watch = _WorkerWatch(self, ready)
        self.logs.ts.advance()
        while self.child.poll() is None and not self.stop.asked:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(POLL_S)
            watch.report_changes()
            self.run.bound_logs()
        self._drain()
        self.stop.check()
        status = self.child.returncode
        raise ServingError(f"TorchServe ended with status {status}: see {self.run.logs}/ts_log.log")

    def _drain(self) -> None:
        """Wait until nothing is in any queue or worker, at most DRAIN_TIMEOUT_S."""
        started = time.monotonic()
        reported = False
        idle_polls = 0
        # A dequeued batch is briefly neither in the queue nor in a worker: require two idle polls.
        while idle_polls < 2 and self.child.poll() is None and not self.stop.immediate:
            if time.monotonic() > started + DRAIN_TIMEOUT_S:
                print(f"still busy after {DRAIN_TIMEOUT_S} s: dropping what is left", flush=True)
                return
            idle_polls = idle_polls + 1 if self._is_idle() else 0
            if not idle_polls and not reported:
                reported = True
                print("finishing accepted requests; a second signal drops them", flush=True)
            time.sleep(POLL_S / 2)

    def _is_idle(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            waiting = sum(map(self.management.pending, self.plan.names))
            return not waiting and not is_working(self.logs.ts.last(LOG_TAIL_BYTES))
        return False

    def end(self) -> None:
        """End TorchServe and every process that it started."""
        self.child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)  # workers that are left
        self.child.wait()


class _WorkerWatch:
    """Prints which workers are lost and which serve again."""

    def __init__(self, process: Process, ready: Mapping[str, Sequence[Worker]]) -> None:
        self._process = process
        self._ready = {model: {worker.pid for worker in ready[model]} for model in ready}
        self._changed: set[str] = set()

    def report_changes(self) -> None:
        """Print changes: the log shows that a model has changed, the management API what."""
        logs = self._process.logs
        # Ask the API one poll later, when it has the change too.
        models, self._changed = self._changed, changed_models(logs.ts.advance())
        for model in models:
            try:
                # A frontend that hangs must not delay the handling of a signal.
                workers = self._process.management.workers(model, timeout=2)
            except requests.RequestException:
                self._changed.add(model)
                continue
            before = self._ready.get(model, set())
            now = {worker.pid for worker in workers if worker.status == "READY"}
            self._ready[model] = now
            clock = time.strftime("%H:%M:%S")
            if before - now and not self._process.stop.asked:
                print(
                    f"{clock} {model}: a worker was lost, TorchServe starts another; "
                    f"see {self._process.run.logs}/model_log.log",
                    flush=True,
                )
            if now - before:
                print(f"{clock} {model}: a worker serves again", flush=True)


@contextlib.contextmanager
def running(plan: Plan, run: RunFolder) -> Iterator[Process]:
    """TorchServe, started as ``plan`` says and ended on the way out.

    Raises Stopped if SIGINT, SIGTERM or SIGHUP asked for the end. A request to the management API
    that fails in the body becomes a ServingError, unless it failed because of such a signal.
    """
    stop = StopRequest()
    with (
        _handle_signals(stop),
        # Worker sockets are in this folder, and their paths may have only 107 bytes.
        tempfile.TemporaryDirectory(prefix="torchserve-", ignore_cleanup_errors=True) as temporary,
    ):
        run.logs.mkdir(parents=True, exist_ok=True)
        run.key_file.unlink(missing_ok=True)
        logs = ServerLogs(run.logs)
        child = _start(plan, run, Path(temporary))
        process = Process(plan, run, logs, Management(plan.config, run), stop, child)
        try:
            stop.terminate = child.terminate
            run.write_state(plan.names, ready=False)
            yield process
        except (ServingError, requests.RequestException) as error:
            stop.check()
            if isinstance(error, ServingError):
                raise
            raise ServingError(f"TorchServe does not answer its own tools: {error}") from error
        finally:
            process.end()
            run.clear_state()


def _start(plan: Plan, run: RunFolder, temporary: Path) -> subprocess.Popen[bytes]:
    """Start the JVM in a session of its own: Ctrl-C in a terminal then reaches only us."""
    properties = run.path / "config.properties"
    plan.config.write(properties, **plan.properties)
    logs = str(run.logs.resolve())
    # TorchServe prints its whole configuration to its standard output, and warnings to its
    # standard error, which is ours.
    with run.open_log(run.java_log) as output:
        return subprocess.Popen(
            plan.command(properties, temporary),
            cwd=run.path,  # TorchServe writes key_file.json there
            env={**plan.environment, "LOG_LOCATION": logs, "METRICS_LOCATION": logs},
            stdin=subprocess.DEVNULL,
            stdout=output,
            start_new_session=True,
            preexec_fn=prepare_child,
        )


def prepare_child() -> None:
    """In the child: reset the signals, and ask for SIGTERM when this process dies (Linux).

    Under nohup, or with & in a script, some signals are ignored, and children inherit that.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def _handle_signals(stop: StopRequest) -> Iterator[None]:
    numbers = list(_STOP_SIGNALS)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)  # nohup: keep ignoring it
    previous = {number: signal.signal(number, stop.receive) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
