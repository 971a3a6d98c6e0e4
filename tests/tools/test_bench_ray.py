"""`make bench PART=ray` from invented measurements; nothing is timed."""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.config import Config
from serving.errors import ServingError
from tools.bench import ray_proxy, ray_serve, report, usage
from tools.bench.common import TASKS, Result
from tools.bench.load import Load
from tools.bench.spawn import spawned

MIB = 2**20
TASK = TASKS["classify"]
NAMES = {
    "throughput": "net, 16 clients: Ray's throughput over bundle's",
    "lone": "net, lone client: Ray's p50 above the bundle's",
}


def visit(rate: float, p50: float) -> ray_serve.Visit:
    lone, many = Result("lone", 1, (p50,) * 3), Result("many", rate, (400.0,) * 3)
    return ray_serve.Visit(7.5, 0.05, 900 * MIB, {"net": lone}, {"net": many})


def tables(*rounds: tuple[ray_serve.Visit, ray_serve.Visit]) -> list[str]:
    """The lines for rounds of (bundle, Ray)."""
    named = [dict(zip(("bundle", "Ray"), each, strict=True)) for each in rounds]
    return ray_serve.tables({"net": TASK}, named)


@pytest.mark.parametrize(
    ("ray", "missed"),
    [
        (visit(19.0, 70.0), None),
        (visit(18.9, 70.0), "throughput"),
        (visit(19.0, 70.1), "lone"),
    ],
)
def test_goals_are_met_at_their_bars(ray: ray_serve.Visit, missed: str | None) -> None:
    lines = [line for line in tables((visit(20.0, 60.0), ray)) if line.endswith("met")]
    assert [line.split("  ")[0] for line in lines] == list(NAMES.values())
    expected = [NAMES[missed]] if missed else []
    assert [line.split("  ")[0] for line in lines if line.endswith("NOT met")] == expected


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is half as fast in one round is so for both servers."""
    fast = visit(20.0, 50.0), visit(20.0, 55.0)
    slow = visit(10.0, 100.0), visit(10.0, 105.0)
    lines = tables(fast, slow, slow)
    assert [line.split()[-4] for line in lines if NAMES["throughput"] in line] == ["1.00"]
    assert [line.split()[-5] for line in lines if NAMES["lone"] in line] == ["5.00"]
    assert "  Ray                       7.5          900                5.0" in lines


def test_the_cost_of_a_request_is_split_among_the_parts_of_the_server() -> None:
    before = {"/venv/bin/haproxy": 1.0, "ray::ServeReplica:vision:front": 2.0}
    after = {
        "/venv/bin/haproxy": 1.1,
        "ray::ProxyActor": 0.1,
        "ray::ServeReplica:vision:front": 2.5,
        "ray::ServeReplica:vision:net": 0.3,
        "/venv/raylet": 0.1,
    }
    parts = ray_proxy.by_part(before, after, requests=100)
    assert parts == pytest.approx({"proxy": 2.0, "front": 5.0, "others": 4.0})


def test_the_limit_says_how_many_gpus_one_proxy_and_one_front_serve() -> None:
    result = Result("HAProxy, lone client", 100.0, (9.0, 10.0, 11.0))
    parts = {"proxy": 0.5, "front": 4.0, "others": 3.0}
    lines = ray_proxy.lines({"HAProxy": ray_proxy.Limit(result, result, parts)})
    assert lines[-1] == (
        "  HAProxy: 2000 requests/s of a core, for 2.00 GPUs; one front behind it: 250 requests/s, "
        "for 0.25 GPUs"
    )


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Load]:
    """Replaces whatever starts a process; the loads that were measured."""
    measured: list[Load] = []

    def measure(load: Load) -> Result:
        measured.append(load)
        return Result(load.label, 10.0, (100.0,) * 3)

    def server(name: str) -> Any:
        @contextlib.contextmanager
        def start(_store: Path, _device: str) -> Iterator[tuple[str, psutil.Process, float]]:
            yield f"http://{name}", psutil.Process(), 7.5

        return start

    limit = ray_proxy.Limit(
        Result("lone", 100.0, (9.0,) * 3),
        Result("many", 300.0, (9.0,) * 3),
        {"proxy": 0.5, "front": 4.0, "others": 3.0},
    )
    monkeypatch.setattr(ray_serve, "measure", measure)
    monkeypatch.setattr(ray_serve, "SERVERS", {name: server(name) for name in ("bundle", "Ray")})
    monkeypatch.setattr(ray_serve, "IDLE_S", 0.01)
    monkeypatch.setattr(ray_serve, "photographs", lambda _: {"1280x720": tmp_path})
    monkeypatch.setattr(ray_proxy, "limit", lambda *_: limit)
    return measured


def test_rounds_alternate(
    loads: list[Load], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("resnet101", "cyclegan"):
        (tmp_path / f"{name}.mar").touch()
    config = Config(Path("config.properties"), {})
    assert ray_serve.run(config, "cpu", False, tmp_path) == 0
    order = [load.label.split(",")[0] for load in loads if load.model == "cyclegan"]
    servers = [name for name, _ in itertools.groupby(name for name in order if name != "warm-up")]
    assert servers == ["bundle", "Ray", "bundle", "Ray"]  # Ray, Ray and bundle, bundle between
    assert len(order) == 3 * 2 * 3
    assert {load.clients for load in loads if load.model == "resnet101"} == {1, 16}
    printed = capsys.readouterr().out
    throughput = "resnet101, 16 clients: Ray's throughput over bundle's"
    assert report.goal(throughput, 1.0, ">=", 0.95) in printed
    lone = "cyclegan, lone client: Ray's p50 above the bundle's"
    assert report.goal(lone, 0.0, "<=", 10.0, "ms") in printed
    for proxy in ray_proxy.PROXIES:
        assert f"  {proxy}: 2000 requests/s of a core" in printed


def test_what_a_process_uses_is_measured() -> None:
    own = psutil.Process()
    assert usage.memory(own) > 10e6
    assert usage.cpu_seconds(own)[own.cmdline()[0]] > 0


def test_a_server_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no port is free')"]
    with (
        pytest.raises(ServingError, match=r"did not start: see .*log"),
        spawned(command, tmp_path / "log", lambda: False, signal.SIGTERM),
    ):
        raise AssertionError
    assert (tmp_path / "log").read_text() == "no port is free\n"


def test_a_server_is_asked_to_end_and_its_group_is_killed_then(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('asked')))\n"
        "print('ready')\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-uc", code]
    log = tmp_path / "log"
    with spawned(command, log, lambda: "ready" in log.read_text(), signal.SIGTERM) as process:
        assert process.is_running()
    assert log.read_text() == "ready\nasked\n"
    assert not process.is_running()
