"""How a server will be started, computed without starting anything.

``plan`` is a pure function of the configuration, the archives, the machine and the command line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from handlers.settings import VARIABLES
from serving.archives import Archive
from serving.config import DEFAULT_GATEWAY_MEMORY, DEFAULT_SIZE, Config
from serving.errors import ServingError
from serving.held import file_name
from serving.machine import Machine
from serving.sockets import Sockets
from serving.traces import settings as traces
from serving.traces.settings import TraceSettings

# Defaults for the workers' libraries; shell variables win.
WORKER_DEFAULTS = {
    # The models share the cores. GNU OpenMP's threads spin at every barrier while another worker
    # holds the core they wait for: without a bound, a forward pass now and then takes seconds.
    "GOMP_SPINCOUNT": "1000",
    # oneDNN caches a compiled kernel for every layer and input shape, and PyTorch the key to it,
    # 1024 each by default. A network needs fewer; pictures of ever new shapes fill the rest with
    # kernels that are seldom used again, up to 0.2 MB a layer.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
}
# TorchServe's own objects and parsed requests, in addition to the bodies that it keeps.
_HEAP_SPARE = 256 * 2**20
_LEAST_HEAP = 2**30
# A worker on the CPU: Python, PyTorch, the weights and the network's intermediate results.
_WORKER_BYTES = 2 * 2**30
# The tokens of TorchServe are only for this server's own processes and end with it.
_CENTURY_MIN = 100 * 365 * 24 * 60
_UNTRACED = "no traces without the gateway (GATEWAY=0): it begins them"
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Options:
    """The options of the command line.

    ``device`` is auto, gpu or cpu. ``models`` are the names to serve (empty: those that the
    configuration selects). ``workers``, ``precision`` and ``engine`` apply to each model; None
    means the value in its archive, and for workers at least one per GPU. Without ``gateway``,
    TorchServe itself listens on the public addresses.
    """

    device: str = "auto"
    models: tuple[str, ...] = ()
    workers: int | None = None
    precision: str | None = None
    engine: str | None = None
    gateway: bool = True


@dataclass(frozen=True)
class ModelPlan:
    """How one model is served; ``queue`` counts waiting requests, over all workers."""

    archive: Archive
    workers: int
    batch: int
    queue: int

    @property
    def model(self) -> str:
        return self.archive.model

    @property
    def version(self) -> str:
        return self.archive.version

    @property
    def key(self) -> str:
        """``MODEL/VERSION``: what the server's parts call it, and TorchServe's APIs in paths."""
        return f"{self.model}/{self.version}"

    @property
    def slots(self) -> int:
        """Requests that the gateway lets TorchServe have at once: two batches per worker, so that
        the next one is complete when a worker becomes free, if TorchServe's queue takes as many.
        """
        in_work = self.workers * self.batch
        return min(2 * in_work, max(self.queue, in_work))

    @property
    def response_timeout(self) -> int:
        """Seconds after which TorchServe kills a worker that has not answered."""
        return self.archive.response_timeout


@dataclass(frozen=True)
class Plan:
    """``environment`` is that of TorchServe, which its workers inherit.

    ``warnings`` say what will be slow here, or too large for this machine. ``gateway`` and
    ``workers`` are as in Options. ``heap`` is the JVM's maximum in bytes. ``traces`` is None if
    none are sent.
    """

    config: Config
    machine: Machine
    models: tuple[ModelPlan, ...]
    environment: Mapping[str, str]
    warnings: tuple[str, ...]
    gateway: bool
    workers: int | None
    heap: int
    traces: TraceSettings | None = None

    @property
    def response_timeout(self) -> int:
        """The largest of the models, in seconds."""
        return max(planned.response_timeout for planned in self.models)

    @property
    def names(self) -> list[str]:
        return [planned.model for planned in self.models]

    def properties(self, sockets: Sockets) -> dict[str, str]:
        """The properties to append to the configuration, for ``Config.write``."""
        private = {
            "use_native_io": "true",
            "management_address": f"unix:{sockets.management}",
            "metrics_address": f"unix:{sockets.metrics}",
            "grpc_management_address": "127.0.0.1",
            "grpc_management_port": str(sockets.grpc_management_port),
            "disable_token_authorization": "true",
            "load_models": ",".join(file_name(planned.archive) for planned in self.models),
            "model_store": str(sockets.store),
            # Not even from a file elsewhere: only by the name of one in the model store.
            "allowed_urls": "none",
            "number_of_gpu": str(self.machine.gpus),
        }
        if self.gateway:
            private |= {
                "inference_address": f"unix:{sockets.inference}",
                "grpc_inference_address": "127.0.0.1",
                "grpc_inference_port": str(sockets.grpc_port),
                "disable_token_authorization": "false",
                "token_expiration_min": str(_CENTURY_MIN),
                # For `make rollout`. Only this server's own processes have a token for it.
                "enable_model_api": "true",
            }
        return private

    def command(self, properties: Path, temporary: Path) -> list[str]:
        """The JVM's command line, for the configuration ``properties`` and a folder of its own.

        It is the command that TorchServe's launcher runs. The launcher is not used, because a
        signal to it leaves Java running, and all servers of a machine share its pid file.
        """
        home = self.machine.torchserve
        return [
            str(self.machine.java.path),
            *self.machine.java.quiet_options,
            f"-Dmodel_server_home={home}",
            f"-Djava.io.tmpdir={temporary}",
            f"-Dlog4j.configurationFile=file://{Path(__file__).with_name('log4j2.xml')}",
            f"-Xmx{self.heap // 2**20}m",
            *self.config.jvm_options,
            "-cp", str(home / "ts" / "frontend" / "*"),
            "org.pytorch.serve.ModelServer",
            "--python", sys.executable,
            "-f", str(properties.resolve()),
            "-s", str(Sockets(temporary).store),
            "-ncs",  # a snapshot of an earlier start must not override this one's options
        ]  # fmt: skip


def plan(
    config: Config,
    archives: Sequence[Archive],
    machine: Machine,
    options: Options,
    shell: Mapping[str, str],
) -> Plan:
    """How ``archives`` are served on ``machine``; ``shell`` is the user's environment.

    Raises ServingError if TorchServe would refuse requests or answers that the archives' limits
    allow, or would run out of memory.
    """
    for archive in archives:
        _check_sizes(config, archive)
    models = tuple(
        _plan_model(config, archive, machine.gpus, options.workers) for archive in archives
    )
    heap = _heap(config, models, options)
    traced = traces.read(shell)
    # Each worker's share of the cores. The models use the same cores in turn.
    threads = max(machine.cores // max(planned.workers for planned in models), 1)
    return Plan(
        config,
        machine,
        models,
        _environment(shell, threads, options),
        tuple(
            filter(
                None,
                (
                    _precision_warning(archives, machine, options),
                    _memory_warning(config, machine, models, threads, heap),
                    _UNTRACED if traced and not options.gateway else "",
                ),
            )
        ),
        options.gateway,
        options.workers,
        heap,
        traced if options.gateway else None,
    )


def plan_version(plan: Plan, archive: Archive) -> ModelPlan:
    """How ``archive``, a further version of a model of ``plan``, is served beside the others.

    Raises ServingError if its limits do not fit the configuration.
    """
    _check_sizes(plan.config, archive)
    return _plan_model(plan.config, archive, plan.machine.gpus, plan.workers)


def _plan_model(config: Config, archive: Archive, gpus: int, workers: int | None) -> ModelPlan:
    yaml = archive.yaml
    # TorchServe uses minWorkers and maxWorkers only if both are set.
    low, high = yaml.get("minWorkers", 0), yaml.get("maxWorkers", 0)
    configured = low if 0 < low <= high else config.number("default_workers_per_model", 1)
    return ModelPlan(
        archive,
        workers or max(configured, gpus, 1),
        archive.batch_size,
        yaml.get("jobQueueSize") or config.number("job_queue_size", 100),
    )


def _environment(shell: Mapping[str, str], threads: int, options: Options) -> dict[str, str]:
    environment = {
        **WORKER_DEFAULTS,
        # The JVM then returns the memory of large requests; blacklist_env_vars in
        # config.properties keeps these two from the workers.
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": "131072",
        # By default PyTorch would give every worker a thread per core.
        "OMP_NUM_THREADS": str(threads),
        # The shell must not change the configuration unseen: TorchServe itself reads
        # TS_OPEN_INFERENCE_PROTOCOL, which adds gRPC methods whose answers would stop a model.
        # OTEL_ variables are for the supervisor, and may have a key of the collector.
        **{name: value for name, value in shell.items() if not name.startswith(("TS_", "OTEL_"))},
    }
    # Workers import the archive's handlers, not those of a checkout that the shell points to.
    environment.pop("PYTHONPATH", None)
    for key, variable in VARIABLES.items():
        environment.pop(variable, None)
        if chosen := getattr(options, key):
            environment[variable] = chosen
    return environment


def _check_sizes(config: Config, archive: Archive) -> None:
    """ServingError if TorchServe's size limits are below what the archive's limits allow.

    A larger request would be answered without our message; a larger answer kills the worker.
    """
    limits = archive.settings.limits
    for need, key in (
        # As base64, with room for the options.
        (limits.request_bytes * 4 // 3 + 2**16, "max_request_size"),
        # network_pixels bounds the output, too. An incompressible PNG adds a byte a row.
        (limits.network_pixels * 3 * 101 // 100, "max_response_size"),
    ):
        size = config.number(key, DEFAULT_SIZE)
        if need > size:
            raise ServingError(
                f"the limits in {archive.path} need {key}={need} or more in {config.path}, which "
                f"has {size}"
            )


def _heap(config: Config, models: Collection[ModelPlan], options: Options) -> int:
    """The JVM's maximum heap in bytes: -Xmx in vmargs, else what the largest requests take.

    TorchServe keeps the body of a request until it is answered, and ends when the heap is full.
    Raises ServingError if -Xmx is less than that.
    """
    kept = sum(
        planned.slots if options.gateway else planned.queue + planned.workers * planned.batch
        for planned in models
    )
    need = max(kept * config.number("max_request_size", DEFAULT_SIZE) + _HEAP_SPARE, _LEAST_HEAP)
    heap = _jvm_size(config, "-Xmx") or need
    if need > heap:
        raise ServingError(
            f"TorchServe can have {kept} requests of max_request_size at once, which takes "
            f"{need / 2**30:.1f} GiB of Java's heap, and vmargs in {config.path} allow "
            f"{heap / 2**30:.1f}: remove -Xmx there, or set a smaller batch_size or "
            "job_queue_size: serving=Serving(...) in the networks' files (export/networks/NAME.py "
            "or your own), then `make archive`"
        )
    return heap


def _precision_warning(archives: Sequence[Archive], machine: Machine, options: Options) -> str:
    """A warning about float16 on a CPU, which computes it by conversion, else an empty string."""
    slow = [a.model for a in archives if (options.precision or a.settings.precision) == "float16"]
    if machine.gpus or not slow:
        return ""
    return (
        f"{', '.join(slow)} in float16 on a CPU: several times slower than float32; "
        "PRECISION=auto chooses what is fast"
    )


def _memory_warning(
    config: Config, machine: Machine, models: Collection[ModelPlan], threads: int, heap: int
) -> str:
    """A warning if all limits together exceed the free memory, else an empty string."""
    parts = {
        "Java's heap": heap,
        # The JVM's default is as much as the heap.
        "its direct memory": _jvm_size(config, "-XX:MaxDirectMemorySize=") or heap,
        "gateway": config.number("gateway_memory_bytes", DEFAULT_GATEWAY_MEMORY),
        "workers": sum(planned.workers for planned in models) * _WORKER_BYTES,
        "decode processes": sum(
            planned.workers
            * min(planned.batch, threads)
            * planned.archive.settings.limits.decode_bytes
            for planned in models
        ),
    }
    need = sum(parts.values())
    if need <= machine.free_memory:
        return ""
    listed = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in parts.items())
    return (
        f"at its limits the server takes {need / 2**30:.1f} GiB ({listed}), and "
        f"{machine.free_memory / 2**30:.1f} GiB are free: under the heaviest load the system may "
        f"kill it. To lower this, serve fewer models (--models), or set a smaller "
        f"gateway_memory_bytes in {config.path} or decode_bytes in the networks' files"
    )


def _jvm_size(config: Config, option: str) -> int | None:
    """Bytes of the last ``option`` in vmargs."""
    pattern = re.compile(option + r"(\d+)([kmgt]?)", re.IGNORECASE)
    matches = filter(None, map(pattern.fullmatch, config.jvm_options))
    sizes = [int(match[1]) * _UNITS[match[2].lower()] for match in matches]
    return sizes[-1] if sizes else None
