"""What a person types: places of a server, synonyms, mistakes. Nothing is started."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from serving import commandline, commands, preflight
from serving.__main__ import _parser
from serving.config import Config
from serving.errors import ServingError
from serving.gateway.credentials import Credentials
from serving.runfolder import RunFolder
from tests.running import ROOT, MakeConfig, free_port


@pytest.fixture
def path(tmp_path: Path, make_config: MakeConfig) -> Path:
    return make_config(tmp_path, tmp_path)


def parse(*options: str | Path) -> argparse.Namespace:
    return _parser().parse_args([*map(str, options)])


@pytest.mark.parametrize(
    ("option", "typed", "meant"),
    [
        ("precision", "fp16", "float16"),
        ("precision", "bf16", "bfloat16"),
        ("precision", "FP32", "float32"),
        ("precision", "half", "float16"),
        ("precision", "auto", "auto"),
        ("device", "cuda", "gpu"),
        ("device", "CPU", "cpu"),
        ("engine", "OpenVINO", "openvino"),
    ],
)
def test_a_synonym_is_understood(option: str, typed: str, meant: str) -> None:
    assert getattr(parse("start", f"--{option}", typed), option) == meant


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--workers", "two"], "--workers must be a whole number of 1 or more, not 'two'"),
        (["--workers", "0"], "--workers must be a whole number of 1 or more, not '0'"),
        (["--port", "65536"], "--port must be a whole number from 1 to 65535, not '65536'"),
        (["--grpc-port", "-1"], "--grpc-port must be a whole number from 1 to 65535, not '-1'"),
        (["--host", "http://x"], "--host must be a name or an address alone, not 'http://x'"),
        (["--device", "tpu"], "--device must be one of auto, gpu, cpu, not 'tpu'"),
        (["--precision"], "--precision expected one argument"),
        (["--set", "=1"], "--set must be a line of the configuration, not '=1'"),
        (["--set", "a"], "--set must be a line of the configuration, not 'a'"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse("serve", *options)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def configured(path: Path, *options: str | Path) -> Config:
    found: list[Config] = []

    def command(config: Config, _: RunFolder) -> int:
        found.append(config)
        return 0

    assert commandline.run(command, parse("serve", "--config", path, *options)) == 0
    return found[0]


def test_the_options_come_before_the_file(path: Path, tmp_path: Path) -> None:
    ports = ("--port", "9001", "--grpc-port", "9002", "--metrics-port", "9003")
    config = configured(path, "--host", "0.0.0.0", *ports, "--model-store", "store")
    assert config.local_inference == "http://127.0.0.1:9001"
    assert config.addresses == {
        "inference_address": ("0.0.0.0", 9001),
        "grpc_inference_port": ("0.0.0.0", 9002),
        "metrics_address": ("127.0.0.1", 9003),
    }
    assert config.model_store == Path.cwd() / "store"
    # TorchServe gets a file; it may listen on these addresses itself.
    config.write(tmp_path / "written")
    written = Config.read(tmp_path / "written")
    assert written.addresses == config.addresses
    assert written.model_store == config.model_store


def test_any_line_of_the_file_can_be_set(path: Path, tmp_path: Path) -> None:
    """Orchestrators have options, and the configuration is the image's own."""
    lines = ("metrics_address=http://0.0.0.0:8082", "api_keys=/keys/keys.txt", "idle_seconds=7")
    config = configured(path, *(f"--set={line}" for line in lines), "--metrics-port", "9003")
    assert config.addresses["metrics_address"] == ("0.0.0.0", 9003)
    assert config.file("api_keys") == Path("/keys/keys.txt")
    config.write(tmp_path / "written")
    assert Config.read(tmp_path / "written").number("idle_seconds", 0) == 7


def test_a_misspelt_line_is_not_set(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--config", path, "--set", "drain_second=1")
    assert commandline.run(lambda *_: 0, parse("serve", *options)) == 1
    assert "no such line; did you mean drain_seconds?" in capsys.readouterr().err


def test_ipv6(path: Path) -> None:
    for typed in ("::1", "[::1]"):
        config = configured(path, "--host", typed)
        assert config.inference.startswith("http://[::1]:")
        assert config.addresses["grpc_inference_port"][0] == "::1"


def test_a_name_is_looked_up(path: Path) -> None:
    """Envoy takes addresses alone; clients and their certificates know the name."""
    path.write_text(path.read_text() + "metrics_address=http://localhost:9003\n")
    config = configured(path, "--host", "LocalHost", "--port", "9001")
    assert {host for host, _ in config.addresses.values()} == {"127.0.0.1"}
    assert config.inference == "http://LocalHost:9001"
    assert check_exposure(config) == ""
    preflight.check_ports(config)
    with pytest.raises(ServingError, match=r"'no\.such\.name\.invalid' has no address"):
        _ = configured(path, "--host", "no.such.name.invalid").addresses


def test_without_options_the_file_counts(path: Path) -> None:
    assert configured(path) == Config.read(path)


def test_an_address_that_is_none(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("inference_address=http://127.0.0.1:99999\n")
    assert commandline.run(lambda *_: 0, parse("serve", "--config", path)) == 1
    assert "error: inference_address in" in capsys.readouterr().err


def test_the_same_server_for_a_child(path: Path) -> None:
    options = "--run-dir other --port 9001 --model-store store --set drain_seconds=1"
    arguments = parse("serve", "--config", path, *options.split())
    assert parse("serve", *commandline.server_options(arguments)) == arguments


def test_an_open_host_needs_keys(path: Path) -> None:
    with pytest.raises(ServingError, match="would be open to the network"):
        check_exposure(configured(path, "--host", "0.0.0.0"))
    assert check_exposure(configured(path, "--host", "::1")) == ""


def check_exposure(config: Config) -> str:
    return preflight.check_exposure(config, Credentials.of(config), gateway=True)


def test_a_running_server_is_not_mistaken_for_another(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()
    port = free_port()
    (tmp_path / "link").symlink_to(tmp_path)
    path.write_text(path.read_text() + "model_store=link\n")
    run.write_state(configured(path, "--port", str(port)), ready=True)

    def status(*options: str) -> int:
        # Another configuration: that of the server counts.
        return commandline.run_beside(
            lambda _: 0, parse("status", "--run-dir", run.path, "--config", "none", *options)
        )

    assert status() == 0
    assert status("--port", str(port), "--host", "localhost") == 0
    assert status("--model-store", str(tmp_path)) == 0
    assert status("--port", str(port + 1)) == 1
    assert f"the server of {run.path} is http://127.0.0.1:{port}, " in capsys.readouterr().err


def test_an_option_is_no_fault_if_no_server_runs(path: Path, tmp_path: Path) -> None:
    arguments = parse("stop", "--run-dir", tmp_path, "--config", path, "--port", str(free_port()))
    assert commandline.run_beside(commands.stop, arguments) == 0


def test_a_busy_port_names_its_process(path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = configured(path, "--metrics-port", str(port))
        with pytest.raises(ServingError) as raised:
            preflight.check_ports(config)
    command = " ".join(psutil.Process().cmdline())
    assert f"127.0.0.1:{port} (Address already in use). Process {os.getpid()} has it" in str(
        raised.value
    )
    assert command[:30] in str(raised.value)
    assert "another user" in preflight._user_of("127.0.0.2", port)
    assert "Choose another with METRICS_PORT=" in str(raised.value)


def test_a_busy_port_names_a_server_of_ours(path: Path, tmp_path: Path) -> None:
    (tmp_path / "serving.py").write_text(
        "import socket; taken = socket.create_server(('127.0.0.1', 0))\n"
        "print(taken.getsockname()[1], flush=True); input()\n"
    )
    command = [sys.executable, "-m", "serving", "serve", "--run-dir=an other"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        config = configured(path, "--port", other.stdout.readline().decode().strip())
        with pytest.raises(ServingError) as raised:
            preflight.check_ports(config)
        other.communicate(b"\n", timeout=60)
    where = f"process {other.pid} in {tmp_path}: `make stop RUN='an other'` there"
    assert f"A server of this project has it, {where}" in str(raised.value)


def test_two_ports_of_a_server_differ(path: Path) -> None:
    port = str(free_port())
    config = configured(path, "--port", port, "--grpc-port", port)
    with pytest.raises(ServingError, match=f"PORT and GRPC_PORT are both {port}"):
        preflight.check_ports(config)


def test_a_kernel_without_ipv6(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ipv6(*_: object) -> NoReturn:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", no_ipv6)
    with pytest.raises(ServingError, match=r"cannot listen on ::1:\d+ \(Address family not supp"):
        preflight.check_ports(configured(path, "--host", "::1"))


def test_a_host_of_another_machine(path: Path) -> None:
    with pytest.raises(ServingError, match=r"192.0.2.1:\d+ .* Choose another with HOST= and PORT="):
        preflight.check_ports(configured(path, "--host", "192.0.2.1"))


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `make` would run, without an installation."""
    return subprocess.run(
        ["make", "--dry-run", "--old-file=install", *arguments],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": "", "MAKELEVEL": "0", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "PRECISON=fp16"], "PRECISON= is no variable of `make serve`; did you mean PREC"),
        (["serve", "RESNET50_WEIGHTS=x"], "RESNET50_WEIGHTS= is no variable of `make serve`"),
        (
            ["start", "XYZ=1"],
            "XYZ= is no variable of `make start` (an environment variable goes before",
        ),
        (
            ["export", "RESNET101_WEIGHT=x"],
            "did you mean RESNET101_WEIGHTS=? (an environment variable ",
        ),
    ],
)
def test_a_misspelt_variable_is_refused(arguments: list[str], message: str) -> None:
    run = make(*arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_variables_of_make_become_options() -> None:
    places = ("HOST=h", "PORT=1", "GRPC_PORT=2", "METRICS_PORT=3", "STORE=s", "RUN=r")
    options = ["--host 'h'", "--port '1'", "--grpc-port '2'", "--metrics-port '3'"]
    options += ["--model-store 's'", "--run-dir 'r'"]
    for verb in ("serve", "start", "stop", "status"):
        assert all(option in make(verb, *places).stdout for option in options)
    assert "--json" in make("status", "JSON=1").stdout
    assert "--model-store 's'" in make("export", "RESNET50_WEIGHTS=x", "STORE=s").stdout


def test_variables_of_other_programs_are_passed_on() -> None:
    for variable in ("TMPDIR=/x", "CUDA_VISIBLE_DEVICES=0"):
        assert make("serve", variable).returncode == 0
    assert make("serve", "XYZ=1", MAKELEVEL="1").returncode == 0  # of a make that calls this one


@pytest.mark.parametrize(
    ("command", "variable", "option", "means"),
    [
        ("status", "JSON", "--json", True),
        ("export", "AOTI", "--aoti", True),
        ("export", "INT8_ONLY", "--int8-only", True),
        ("key", "REPLACE", "--replace", True),
        ("demo", "ONCE", "--once", True),
        ("bench", "QUICK", "--quick", True),
        ("audit", "ALLOW_OFFLINE", "--allow-offline", True),
        ("serve", "GATEWAY", "--no-gateway", False),
    ],
)
def test_a_switch_is_on_or_off(command: str, variable: str, option: str, means: bool) -> None:
    for value, on in (("1", True), ("true", True), ("0", False), ("false", False)):
        assert (option in make(command, f"{variable}={value}").stdout) is (on is means)
    assert option not in make(command, f"{variable}=").stdout
    wrong = make(command, f"{variable}=maybe")
    assert wrong.returncode == 2
    assert f"{variable}=maybe: 1, yes, true or on, or 0, no, false or off" in wrong.stderr


def test_a_quote_in_a_value() -> None:
    export = make("export", "WEIGHTS=it's.pth", "NETWORK=it's.py").stdout
    assert shlex.split(export)[-3:] == ["it's.py", "--weights", "it's.pth"]
    assert shlex.split(make("key", "NAME=it's").stdout)[-1] == "it's"


def test_the_shells_host_and_port_are_for_others() -> None:
    shell = {"HOST": "myhost", "PORT": "3000", "STORE": "s", "RUN": "r", "PRECISON": "fp16"}
    run = make("serve", **shell, PRECISION="bf16")
    assert run.returncode == 0
    assert "--precision 'bf16'" in run.stdout
    assert not any(word in run.stdout for word in ("myhost", "3000", "'s'", "'r'"))
    shell = {"NAME": "wsl", "REPLACE": "1", "CLIENT": "c", "HOSTS": "h"}
    assert make("key", "cert", **shell).stdout.split() == make("key", "cert").stdout.split()
