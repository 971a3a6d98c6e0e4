"""TorchServe as a child: started, watched until every model truly answers, and ended whole.

The JVM is started as TorchServe's launcher would, without the launcher: a signal to that leaves
Java running, and its pid file is one for the whole machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn

import requests

from handlers.settings import PRECISION_VARIABLE
from serving import capacity, cores, gpus, java, preflight
from serving.api import Api, Worker
from serving.config import Config
from serving.errors import ServingError
from serving.failures import LogTail, changed, find, is_working
from serving.runfolder import RunFolder

START_TIMEOUT_S = 300
# What was accepted may take so long after a first signal; TorchServe itself would drop it.
DRAIN_TIMEOUT_S = 20
# TorchServe ends in a few seconds; then whatever is left of it is killed.
STOP_TIMEOUT_S = 20
POLL_S = 0.25
LOG_TAIL_BYTES = 2**18
TELL_EVERY_S = 10
# Defaults for the workers' libraries; shell variables win.
WORKERS = {
    # The models share the cores. GNU OpenMP's threads spin at every barrier while another worker
    # holds the core they wait for: unbounded, a network now and then takes seconds.
    "GOMP_SPINCOUNT": "1000",
    # oneDNN keeps a compiled kernel for every layer and input shape, and PyTorch what led to it,
    # 1024 each by default. A network's own fit into fewer; pictures of ever new shapes fill the
    # rest, by up to 0.2 MB a layer, with what is seldom seen again.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
}
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Stopped(Exception):
    """A signal asked for the end."""


class Server:
    """One TorchServe. Use ``running``, which ends it whatever happens."""

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        device: str,
        workers: int | None,
        precision: str | None = None,
    ) -> None:
        self.config = config
        self.run = run
        self.api = Api(config, run.key_file)
        self._device = device
        self._workers = workers
        self._precision = precision
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary: Path | None = None
        self._stopping = self._hurrying = self._ready = False
        # By model: the processes of its ready workers; the models whose workers have changed.
        self._serving: dict[str, set[int]] = {}
        self._changed: set[str] = set()

    def check(self) -> None:
        """Everything that must hold before the start; ServingError for the first that does not."""
        self.run.require_free()
        archives = preflight.check_archives(self.config)
        self.models = list(archives)
        preflight.check_limits(self.config)
        self._gpus = gpus.count(self._device)
        self._plans = capacity.plan(self.config, archives, self._gpus, self._workers)
        self._cores = cores.available()
        capacity.check_heap(self.config, self._plans)
        preflight.check_ports(self.config)
        preflight.check_space(self.config, self.run)
        self._java = java.find()
        available = capacity.available_memory()
        warning = capacity.memory_warning(self.config, self._plans, available, self._cores)
        if warning:
            print(f"warning: {warning}", file=sys.stderr, flush=True)

    def start(self) -> None:
        """Start the JVM in a session of its own, so that a terminal's Ctrl-C reaches us alone."""
        self.run.logs.mkdir(parents=True, exist_ok=True)
        self.run.key_file.unlink(missing_ok=True)
        self._ts_log = LogTail(self.run.logs / "ts_log.log")
        self._model_log = LogTail(self.run.logs / "model_log.log")
        effective = self.run.path / "config.properties"
        self.config.write(effective, number_of_gpu=str(self._gpus))
        # Short and our own: worker sockets live there, whose paths may have 107 bytes.
        self._temporary = Path(tempfile.mkdtemp(prefix="torchserve-"))
        home = Path(find_spec("ts").origin).parents[1]  # type: ignore[union-attr, arg-type]
        command = [
            str(self._java.path),
            *self._java.quiet,
            f"-Dmodel_server_home={home}",
            f"-Djava.io.tmpdir={self._temporary}",
            f"-Dlog4j.configurationFile=file://{Path(__file__).with_name('log4j2.xml')}",
            *self.config.jvm_options,
            "-cp", str(home / "ts" / "frontend" / "*"),
            "org.pytorch.serve.ModelServer",
            "--python", sys.executable,
            "-f", str(effective.resolve()),
            "-s", str(self.config.model_store.resolve()),
            "-ncs",  # no snapshot of an earlier start decides over what was asked for now
        ]  # fmt: skip
        logs = str(self.run.logs.resolve())
        threads = capacity.threads(self._plans, self._cores)
        environment = {
            **worker_environment(os.environ, threads, self._precision),
            "LOG_LOCATION": logs,
            "METRICS_LOCATION": logs,
        }
        # TorchServe prints its whole configuration; warnings come on standard error.
        with self.run.open_log(self.run.java_log) as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.run.path,  # key_file.json is written there
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                start_new_session=True,
                preexec_fn=_prepare_child,
            )
        self.run.write_state(ready=False)

    def wait_until_ready(self) -> dict[str, list[Worker]]:
        """Wait for a true answer of each model by all of its workers; their workers by model.

        Raises ServingError as soon as a model cannot load or TorchServe ends.
        """
        started = told = time.monotonic()
        device = f"{self._gpus} GPU(s)" if self._gpus else "the CPU"
        print(f"starting {', '.join(self.models)} on {device}", flush=True)
        ready: dict[str, list[Worker]] = {}
        wanted: dict[str, int] = {}
        while len(ready) < len(self.models):
            self._raise_if_failed()
            missing = ", ".join(model for model in self.models if model not in ready)
            if time.monotonic() - started > START_TIMEOUT_S:
                raise ServingError(f"no answer from {missing} after {START_TIMEOUT_S} s")
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                print(f"{missing}: loading, {told - started:.0f} s", flush=True)
            time.sleep(POLL_S)
            for plan in self._plans:
                model = plan.model
                if model in ready:
                    continue
                with contextlib.suppress(requests.RequestException):
                    wanted[model] = wanted.get(model) or self._scale(plan)
                    workers = self.api.workers(model)
                    if sum(worker.status == "READY" for worker in workers) < wanted[model]:
                        continue
                    if self.api.refusal(model, timeout=60) is None:
                        ready[model] = workers
                        self._serving[model] = {worker.pid for worker in workers}
                        seconds = time.monotonic() - started
                        print(f"{model:<10} answers after {seconds:.1f} s", flush=True)
        return ready

    def wait(self) -> NoReturn:
        """Tell of workers that come and go until TorchServe's end.

        Raises Stopped where that was asked for, once what was accepted is answered; else
        ServingError.
        """
        assert self._process is not None
        self._ready = True
        self._ts_log.advance()
        while self._process.poll() is None and not self._stopping:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(POLL_S)
            self._tell_changes()
            self.run.bound_logs()
        self._drain()
        self.raise_if_stopping()
        status = self._process.returncode
        raise ServingError(f"TorchServe ended with status {status}: see {self.run.logs}/ts_log.log")

    def request_stop(self) -> None:
        """Ask TorchServe to end, from a signal handler.

        An exception raised there could surface inside any lock or finaliser of any library. This
        way whatever waits for TorchServe's answer or end gets it at once, and says Stopped. While
        serving, the first call lets it finish what it has accepted.
        """
        self._hurrying = self._stopping or not self._ready
        self._stopping = True
        if self._process is not None and self._hurrying:
            self._process.terminate()

    def _drain(self) -> None:
        """Wait, DRAIN_TIMEOUT_S at most, for a moment with nothing in any queue or worker."""
        assert self._process is not None
        started = time.monotonic()
        idle = told = 0
        # Between leaving the queue and reaching a worker a batch is nowhere: so look twice.
        while idle < 2 and self._process.poll() is None and not self._hurrying:
            if time.monotonic() > started + DRAIN_TIMEOUT_S:
                print(f"still busy after {DRAIN_TIMEOUT_S} s: what is left is dropped", flush=True)
                return
            idle = idle + 1 if self._is_idle() else 0
            if not idle and not told:
                told = 1
                print("finishing what was accepted; a second signal drops it", flush=True)
            time.sleep(POLL_S / 2)

    def _is_idle(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            waiting = sum(self.api.pending(model) for model in self.models)
            return not waiting and not is_working(self._ts_log.last(LOG_TAIL_BYTES))
        return False

    def _tell_changes(self) -> None:
        """The log says that something has changed, the management API says what."""
        models, self._changed = self._changed, changed(self._ts_log.advance())
        for model in models:
            try:
                # A frontend that hangs must not keep a signal to this process waiting.
                workers = self.api.workers(model, timeout=2)
            except requests.RequestException:
                self._changed.add(model)
                continue
            before = self._serving.get(model, set())
            now = {worker.pid for worker in workers if worker.status == "READY"}
            self._serving[model] = now
            clock = time.strftime("%H:%M:%S")
            if before - now and not self._stopping:
                print(
                    f"{clock} {model}: a worker was lost, TorchServe starts another; "
                    f"see {self.run.logs}/model_log.log",
                    flush=True,
                )
            if now - before:
                print(f"{clock} {model}: a worker serves again", flush=True)

    def raise_if_stopping(self) -> None:
        if self._stopping:
            raise Stopped

    def stop(self) -> None:
        """End TorchServe and every process it started; safe to call at any moment."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers that did not follow
            process.wait()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        self.run.clear_state()

    def _scale(self, plan: capacity.Plan) -> int:
        """Ask for the planned workers where TorchServe, by the YAML, has started others."""
        if plan.workers != len(self.api.workers(plan.model)):
            self.api.scale(plan.model, plan.workers)
        return plan.workers

    def _all_ready(self, model: str) -> bool:
        with contextlib.suppress(requests.RequestException):
            workers = self.api.workers(model)
            return bool(workers) and all(worker.status == "READY" for worker in workers)
        return False

    def _raise_if_failed(self) -> None:
        self.raise_if_stopping()
        assert self._process is not None
        recovered: set[str] = set()
        while failure := find(self._ts_log.read(), self._model_log.read(), recovered):
            if not self._all_ready(failure.model):
                break
            recovered.add(failure.model)
        if failure:
            time.sleep(1)  # the traceback comes through another pipe
            failure = find(self._ts_log.read(), self._model_log.read(), recovered) or failure
            told = [f"{failure.model} cannot be loaded: {failure.line}", failure.output]
            told.append(f"all of it is in {self.run.logs}")
            raise ServingError("\n".join(filter(None, told)))
        if self._process.poll() is not None:
            log = self._ts_log.read() + self.run.java_log.read_text(errors="replace")
            last = "\n".join(log.splitlines()[-5:])
            raise ServingError(f"TorchServe ended at its start:\n{last}")


def worker_environment(
    shell: Mapping[str, str], threads: int, precision: str | None
) -> dict[str, str]:
    """The environment for TorchServe and its workers, made from that of the user's ``shell``.

    ``threads`` are those of each worker, ``precision`` is that of every model where it is not None.
    """
    environment = {
        **WORKERS,
        # The JVM gives the memory of large requests back; config.properties keeps these from
        # the workers.
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": "131072",
        # Each worker its share of the cores: PyTorch would give every one of them all.
        "OMP_NUM_THREADS": str(threads),
        # A shell's variables do not change the configuration unseen. TorchServe itself reads
        # TS_OPEN_INFERENCE_PROTOCOL, which adds gRPC methods whose answers would stop a model.
        **{name: value for name, value in shell.items() if not name.startswith("TS_")},
    }
    # The archive's own handlers, not a checkout's that the shell points to.
    environment.pop("PYTHONPATH", None)
    environment.pop(PRECISION_VARIABLE, None)
    return environment | ({PRECISION_VARIABLE: precision} if precision else {})


@contextlib.contextmanager
def running(
    config: Config,
    run: RunFolder,
    device: str,
    workers: int | None = None,
    precision: str | None = None,
) -> Iterator[Server]:
    """A started server, ended on the way out; Stopped where SIGINT, SIGTERM or SIGHUP asked for it.

    Requests that fail in the body are ServingErrors, or the consequence of being stopped.
    """
    server = Server(config, run, device, workers, precision)
    server.check()
    with _signals_to(server.request_stop):
        try:
            server.start()
            yield server
        except (ServingError, requests.RequestException) as error:
            server.raise_if_stopping()
            if isinstance(error, ServingError):
                raise
            raise ServingError(f"TorchServe does not answer its own tools: {error}") from error
        finally:
            server.stop()


def _prepare_child() -> None:
    """Run in the child: it obeys signals, and gets SIGTERM however this process dies (Linux).

    What runs under nohup, or with & in a script, ignores some signals, and children inherit that.
    """
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def _signals_to(action: Callable[[], None]) -> Iterator[None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        action()

    numbers = list(_ENDING)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)  # nohup: to go on is what was asked for
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
