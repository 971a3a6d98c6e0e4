"""The benchmark's arithmetic and tables, from invented measurements; nothing is timed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from serving.errors import ServingError
from tools.bench import report
from tools.bench.bare import fastest
from tools.bench.common import TASKS, Result
from tools.bench.gpu import verdict
from tools.bench.load import Load, Sample, summarise
from tools.bench.pictures import photographs

MIB = 2**20
LOAD = Load("REST", "http://127.0.0.1:1", "net", Path("photo.jpg"), seconds=2.0, clients=8)


def result(label: str, rate: float, *ms: float, memory: float = 0.0) -> Result:
    return Result(label, rate, ms or (100.0, 100.0, 100.0), memory)


def measured(**changes: Result) -> dict[str, Result]:
    """A round in which every goal is met exactly, apart from ``changes``."""
    return {
        "network": result("bare network, batch 8", 22.0, 45.0, memory=500 * MIB),
        "network_one": result("bare network, batch 1", 20.0, 50.0),
        "decode": result("bare decode, one core, batch 1", 100.0, 10.0),
        "pipeline": result("bare pipeline, batch 8", 20.0, 50.0),
        "stock": result("stock, defaults, 16 clients", 7.5),
        "stock_one": result("stock, one worker, 16 clients", 9.0),
        "rest": result("REST, 16 clients", 18.0, 400.0, 500.0, 800.0, memory=650 * MIB),
        "grpc": result("gRPC, 16 clients", 18.0),
        "lone": result("REST, lone client", 14.7, 68.0),
        "large": result("REST, 16 clients, 12 MP", 10.8),
        "small": result("REST, 16 clients, 320x240", 18.0),
        **changes,
    }


def missed(task: str, *rounds: dict[str, Result]) -> list[str]:
    return [
        line.split("  ")[0]
        for line in report.goals("net", replace(TASKS[task], clients=16), rounds)
        if "NOT" in line
    ]


def test_a_goal_is_met_at_its_bar() -> None:
    assert report.goal("late", 8.0, "<=", 8.0, "ms").endswith("8.00    <= 8.00 ms  met")
    assert report.goal("late", 8.1, "<=", 8.0).endswith("NOT met")
    assert report.goal("fast", 0.9, ">=", 0.9).endswith(" met")
    assert report.goal("fast", 0.8, ">=", 0.9).endswith("NOT met")
    assert report.goal("fast", float("nan"), ">=", 0.9).endswith("NOT met")


def test_all_goals_are_met_at_their_bars() -> None:
    assert missed("classify", measured()) == []
    assert missed("translate", measured()) == []


@pytest.mark.parametrize(
    ("task", "change", "text"),
    [
        ("classify", {"pipeline": result("", 20.5)}, "net, 16 clients: of the bare pipeline"),
        ("translate", {"pipeline": result("", 20.5)}, "net, 16 clients: of the bare pipeline"),
        ("classify", {"pipeline": result("", 19.9)}, "net: bare pipeline over the bare network"),
        ("classify", {"stock": result("", 7.6)}, "net, 16 clients: times stock, defaults"),
        ("translate", {"stock": result("", 9.6)}, "net, 16 clients: times a plain float32 handler"),
        ("classify", {"lone": result("", 1, 69)}, "net, lone client: p50 over network and decode"),
        ("classify", {"large": result("", 10.7)}, "net: 12 MP throughput over 1280x720"),
        ("translate", {"grpc": result("", 17.9)}, "net: gRPC throughput over REST"),
    ],
)  # fmt: skip
def test_each_goal_can_be_missed(task: str, change: dict[str, Result], text: str) -> None:
    assert missed(task, measured(**change)) == [text]


def test_the_tail_and_the_memory_of_a_worker_are_goals() -> None:
    rest = result("REST, 16 clients", 18.0, 400.0, 500.0, 801.0, memory=651 * MIB)
    expected = ["net, 16 clients: p99 over p50", "net: worker memory over the bare process"]
    assert missed("classify", measured(rest=rest)) == expected


def test_the_median_of_the_rounds_counts() -> None:
    rounds = [measured(large=result("", rate)) for rate in (1.0, 12.0, 13.0)]
    assert missed("classify", *rounds) == []


def test_a_table_has_medians_over_the_rounds() -> None:
    rounds = [
        measured(grpc=result("gRPC, 16 clients", rate, 500.0, 600.0, 900.0))
        for rate in (1.0, 20.0, 30.0)
    ]
    lines = report.table("net", rounds).splitlines()
    assert lines[0].split() == ["net", "pictures/s", "p50", "p95", "p99", "ms"]
    (grpc,) = [line.split() for line in lines if "gRPC" in line]
    assert grpc[-4:] == ["20.00", "500.0", "600.0", "900.0"]
    assert lines[-1] == "  memory: worker 650 MiB, bare process 500 MiB"


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is slower in one round is so for both sides."""
    fast = measured(rest=result("REST, 16 clients", 20.0), stock=result("stock, defaults", 2.0))
    slow = measured(rest=result("REST, 16 clients", 10.0), stock=result("stock, defaults", 1.0))
    lines = report.ratios("net", [fast, slow, slow]).splitlines()
    assert lines[0] == "net, REST, 16 clients: 10.00 pictures/s"
    assert lines[1] == "    0.45 of the bare network, batch 8"
    assert lines[3] == "   10.00 times stock, defaults"
    assert lines[4] == "    1.11 times stock, one worker"


def test_curves_are_drawn(tmp_path: Path) -> None:
    curve: dict[float, Result] = {
        n: result("", n, 40.0 * n, 50.0 * n, 60.0 * n) for n in (1, 4, 16)
    }
    curves = {"one": (curve, curve), "two": (curve, curve)}
    report.draw("a machine", {name: [measured()] for name in curves}, curves, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.width > 1000


def test_hidden_instructions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    line = report.machine("cpu")
    assert "newer instructions hidden by ONEDNN_MAX_CPU_ISA=AVX2)" in line
    assert f"{os.cpu_count()} cores" in line


def test_a_closed_loop_does_not_count_by_the_window() -> None:
    """Replies in batches of 8 every second, a window of 1.5 s: a count would give 5.3 or 10.7."""
    cycles = [Sample(float(i), i + 1.0, "") for i in range(1, 3) for _ in range(8)]
    found = summarise(LOAD, cycles, begin=0.5, end=2.0)
    assert found.rate == pytest.approx(8.0)
    assert found.ms == pytest.approx((1000.0, 1000.0, 1000.0))


def test_an_open_loop_counts_until_the_last_reply() -> None:
    """Latencies are from the arrival; percentiles are values that occurred."""
    samples = [Sample(i / 100, i / 100 + i / 10, "") for i in range(1, 101)]
    found = summarise(replace(LOAD, rate=100.0), samples, begin=0.0, end=1.0)
    assert found.rate == pytest.approx(100 / 11)
    assert found.ms == pytest.approx((5e3, 9.5e3, 9.9e3))


def test_only_an_open_loop_may_be_refused() -> None:
    samples = [Sample(0.0, 1.0, ""), Sample(0.0, 1.0, "503 Busy: later")]
    assert summarise(replace(LOAD, rate=2.0), samples, 0.0, 1.0).rate == pytest.approx(1.0)
    with pytest.raises(ServingError, match="503 Busy"):
        summarise(LOAD, samples, 0.0, 1.0)
    with pytest.raises(ServingError, match="503 Busy"):
        summarise(replace(LOAD, rate=2.0), samples[1:], 0.0, 1.0)


def test_the_fastest_batch_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs say how long they took: 10, 9 and 9.5 ms a picture."""
    monkeypatch.setattr("timeit.timeit", lambda job, number: job())
    jobs = {n: lambda n=n, each=each: n * each for n, each in ((1, 0.01), (2, 0.009), (4, 0.0095))}
    seconds, batch = fastest(jobs, seconds=0.0)
    assert batch == 2
    assert seconds == pytest.approx(0.009)


def test_the_slower_of_network_and_decoding_is_the_limit() -> None:
    floors = [result("bare network, batch 1", 500.0), result("bare network, batch 32", 2000.0)]
    served = [result("bundle, 1 worker(s)", 800.0), result("bundle, 2 worker(s)", 1000.0)]
    assert verdict([*floors, result("bare decode, batch 64", 1250.0)], served) == (
        "limit: bare decode, batch 64, 1250.0 pictures/s; bundle, 2 worker(s) reaches 0.80 of it, "
        "goal >= 0.80: met"
    )
    slower = verdict([*floors, result("bare decode, batch 64", 3000.0)], served)
    assert slower.startswith("limit: bare network, batch 32, 2000.0")
    assert slower.endswith("0.50 of it, goal >= 0.80: NOT met")


def test_photographs_have_their_size_and_the_bytes_of_a_camera_s(tmp_path: Path) -> None:
    path = photographs(tmp_path)["1280x720"]
    with Image.open(path) as image:
        assert (image.format, image.size) == ("JPEG", (1280, 720))
    data = path.read_bytes()
    assert 250e3 < len(data) < 400e3
    photographs(tmp_path)
    assert path.read_bytes() == data
