"""A start is planned from the configuration, the archives and the machine, without a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from handlers.settings import Settings
from serving.archives import Archive, read_archives
from serving.config import Config
from serving.errors import ServingError
from serving.gateway.process import limits
from serving.machine import Java, Machine
from serving.plan import Options, Plan, plan
from serving.sockets import Sockets, client
from tests.running import MakeConfig, Running

GIB = 2**30
MACHINE = Machine(
    gpus=0,
    cores=16,
    memory=64 * GIB,
    free_memory=64 * GIB,
    java=Java(Path("/java"), 25),
    torchserve=Path("/site-packages"),
)
ONE = {"minWorkers": 1, "maxWorkers": 1}
THREE = {"minWorkers": 3, "maxWorkers": 3}


@pytest.fixture
def config(tmp_path: Path, make_config: MakeConfig) -> Config:
    return Config.read(make_config(tmp_path, tmp_path))


def changed(config: Config, **changes: str) -> Config:
    return replace(config, values={**config.values, **changes})


def archives(*yamls: dict[str, Any]) -> list[Archive]:
    """An archive for each of ``yamls``: a, b, ..."""
    return [
        Archive(
            Path(f"/store/{name}.mar"),
            name,
            "classify",
            "random",
            yaml,
            Settings.from_yaml(yaml),
            {},
            "1.0",
        )
        for name, yaml in zip("abc", yamls, strict=False)
    ]


def make(
    config: Config,
    served: Sequence[Archive],
    *,
    workers: int | None = None,
    precision: str | None = None,
    shell: dict[str, str] | None = None,
    gateway: bool = True,
    **facts: Any,
) -> Plan:
    options = Options(workers=workers, precision=precision, gateway=gateway)
    return plan(config, served, replace(MACHINE, **facts), options, shell or {})


@pytest.mark.parametrize(
    ("gpus", "workers", "expected", "threads"),
    [
        (0, None, [1, 3], 5),
        (2, None, [2, 3], 5),
        (8, None, [8, 8], 2),
        (8, 1, [1, 1], 16),
        (0, 4, [4, 4], 4),
        (0, 40, [40, 40], 1),
    ],
)
def test_workers_and_their_share_of_16_cores(
    config: Config, gpus: int, workers: int | None, expected: list[int], threads: int
) -> None:
    large = changed(config, vmargs="-Xmx16g")
    planned = make(large, archives(ONE, THREE), gpus=gpus, workers=workers)
    assert [model.workers for model in planned.models] == expected
    assert planned.environment["OMP_NUM_THREADS"] == str(threads)


def test_workers_with_half_of_the_yaml(config: Config) -> None:
    """As in TorchServe: minWorkers alone is ignored."""
    planned = make(changed(config, default_workers_per_model="2"), archives({"minWorkers": 3}, {}))
    assert [model.workers for model in planned.models] == [2, 2]


def test_the_queue_is_the_yamls(config: Config) -> None:
    planned = make(changed(config, job_queue_size="50"), archives({"jobQueueSize": 7}, {}))
    assert [model.queue for model in planned.models] == [7, 50]


def test_what_torchserve_keeps_fits_the_heap(config: Config) -> None:
    served = archives({**ONE, "batchSize": 8}, {**ONE, "batchSize": 4, "jobQueueSize": 20})
    sizes = {"max_request_size": str(2**25), "job_queue_size": "100"}
    small = changed(config, vmargs="-Xmx1g", **sizes)
    # Two batches of each model, and 256 MiB.
    with pytest.raises(ServingError, match=r"24 requests .* 1.0 GiB .* allow 1.0: remove -Xmx"):
        make(changed(config, vmargs="-Xmx9g -Xmx1023m", **sizes), served)
    make(small, served)
    with pytest.raises(ServingError, match="remove -Xmx"):
        make(small, served, gpus=8)
    # Without the gateway also what waits.
    with pytest.raises(ServingError, match=r"132 requests .* 4.4 GiB .* allow 4.0: remove -Xmx"):
        make(changed(config, vmargs="-Xmx4g", **sizes), served, gateway=False)
    # Without -Xmx the heap is what is needed.
    assert make(changed(config, vmargs="", **sizes), served).heap == 24 * 2**25 + 2**28


def test_the_gateway_has_memory_for_large_requests(config: Config) -> None:
    served = archives(ONE)
    assert limits(make(config, served)).memory_bytes == 2**30
    small = changed(config, gateway_memory_bytes=str(4 * 25165824 - 1))
    with pytest.raises(ServingError, match="at least 4 times max_request_size"):
        limits(make(small, served))


def test_the_slots_are_what_workers_need_and_torchserve_can_keep(config: Config) -> None:
    served = archives({**ONE, "batchSize": 8}, {**ONE, "batchSize": 4, "jobQueueSize": 6})
    assert [model.slots for model in make(config, served).models] == [16, 6]
    assert [model.slots for model in make(config, served, gpus=2).models] == [32, 8]


def test_limits_beyond_the_machine_are_a_warning(config: Config) -> None:
    vmargs = "-Xmx4g -XX:MaxDirectMemorySize=1g"
    config = changed(config, vmargs=vmargs, job_queue_size="10")
    served = archives({**ONE, "batchSize": 8}, {**ONE, "batchSize": 1})
    # On two cores: 4 + 1 + 1 + 2 workers of 2, and 2 + 1 decode processes of 0.5.
    assert make(config, served, cores=2, free_memory=int(11.5 * GIB)).warnings == ()
    (warning,) = make(config, served, cores=2, free_memory=11 * GIB).warnings
    assert "11.5 GiB (Java's heap 4.0, its direct memory 1.0, gateway 1.0, workers 4.0" in warning
    assert "decode processes 1.5), and 11.0 GiB are free" in warning
    assert "gateway_memory_bytes" in warning
    assert "decode processes 3.0)" in make(config, served, cores=5, free_memory=0).warnings[0]


@pytest.mark.parametrize(
    ("yaml", "precision", "gpus", "warned"),
    [
        ({}, "float16", 0, True),
        ({"handler": {"precision": "fp16"}}, None, 0, True),
        ({"handler": {"precision": "float16"}}, "bfloat16", 0, False),
        ({}, "float16", 1, False),
        ({}, None, 0, False),
    ],
)
def test_float16_on_a_cpu_is_a_warning(
    config: Config, yaml: dict[str, Any], precision: str | None, gpus: int, warned: bool
) -> None:
    warnings = make(config, archives(yaml), precision=precision, gpus=gpus).warnings
    assert any("a in float16 on a CPU" in warning for warning in warnings) is warned


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"request_bytes": 2**25}, "need max_request_size=44804778 or more"),
        ({"network_pixels": 10_000_000}, "need max_response_size=30300000 or more"),
    ],
)
def test_limits_that_torchserve_would_cut_off(
    config: Config, limits: dict[str, int], message: str
) -> None:
    with pytest.raises(ServingError, match=message):
        make(config, archives({"handler": {"limits": limits}}))


def test_a_wrong_number_is_named(config: Config) -> None:
    with pytest.raises(ServingError, match=r"job_queue_size in .* a whole number, not many"):
        make(changed(config, job_queue_size="many"), archives(ONE))


@pytest.mark.parametrize("gpus", [0, 8])
def test_this_configuration_fits(
    model_store: Path, tmp_path: Path, make_config: MakeConfig, gpus: int
) -> None:
    config = Config.read(make_config(tmp_path, model_store))
    make(config, read_archives(config), gpus=gpus)


def test_the_shell_adds_variables_and_changes_no_configuration(config: Config) -> None:
    shell = {
        "GOMP_SPINCOUNT": "7",
        "HOME": "/home/me",
        "HANDLER_PRECISION": "float16",
        "PYTHONPATH": "/checkout",
        "TS_OPEN_INFERENCE_PROTOCOL": "true",
    }
    environment = make(config, archives(ONE), shell=shell).environment
    assert (environment["GOMP_SPINCOUNT"], environment["HOME"]) == ("7", "/home/me")
    assert environment["LRU_CACHE_CAPACITY"] == "128"
    assert not {"HANDLER_PRECISION", "PYTHONPATH", "TS_OPEN_INFERENCE_PROTOCOL"} & set(environment)
    forced = make(config, archives(ONE), shell=shell, precision="float32").environment
    assert forced["HANDLER_PRECISION"] == "float32"


def test_traces_are_sent_if_the_shell_says_where(config: Config) -> None:
    shell = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}
    shell |= {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret"}
    assert make(config, archives(ONE)).traces is None
    planned = make(config, archives(ONE), shell=shell)
    assert planned.traces is not None
    assert planned.traces.endpoint == "http://collector:4317"
    assert not any("OTEL" in name for name in planned.environment)
    bare = make(config, archives(ONE), shell=shell, gateway=False)
    assert bare.traces is None
    assert any("no traces without the gateway" in warning for warning in bare.warnings)


def test_what_torchserve_is_started_with(config: Config, tmp_path: Path) -> None:
    planned = make(changed(config, vmargs="-Xmx6g -Xms1g"), archives(ONE, THREE), gpus=2)
    properties = planned.properties(Sockets(Path("/tmp/ts"), 7, 8))
    assert properties["load_models"] == "a-1.0.mar,b-1.0.mar"
    assert properties["model_store"] == "/tmp/ts/store"
    assert properties["enable_model_api"] == "true"
    assert properties["number_of_gpu"] == "2"
    assert properties["disable_token_authorization"] == "false"
    for api in ("inference", "management", "metrics"):
        assert properties[f"{api}_address"] == f"unix:/tmp/ts/{api}"
    assert (properties["grpc_inference_port"], properties["grpc_management_port"]) == ("7", "8")
    command = planned.command(tmp_path / "run.properties", Path("/tmp/ts"))
    assert command[:2] == ["/java", "--enable-native-access=ALL-UNNAMED"]
    assert command.index("-Xmx6g") < command.index("org.pytorch.serve.ModelServer")
    assert command[command.index("-f") + 1] == str(tmp_path / "run.properties")
    assert "-Djava.io.tmpdir=/tmp/ts" in command


@pytest.mark.slow
def test_torchserve_uses_the_queue_of_the_yaml(server: Running) -> None:
    for archive in read_archives(server.config):
        queue = archive.yaml.get("jobQueueSize", 100)
        token = partial(server.run.token, "management")
        with client(server.run.sockets.management, token) as http:
            (reply,) = http.get(f"/models/{archive.model}", timeout=30).json()
        assert reply["jobQueueStatus"] == {"remainingCapacity": queue, "pendingRequests": 0}


def test_without_a_gateway_only_the_public_addresses_are_open(config: Config) -> None:
    planned = make(config, archives(ONE), gateway=False)
    properties = planned.properties(Sockets(Path("/tmp/ts"), 7, 8))
    assert "inference_address" not in properties
    assert "enable_model_api" not in properties
    assert properties["management_address"] == "unix:/tmp/ts/management"
    assert properties["disable_token_authorization"] == "true"
