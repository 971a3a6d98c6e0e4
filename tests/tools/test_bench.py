"""The benchmark's arithmetic and tables, from invented measurements; nothing is timed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from export.networks import registered
from serving.errors import ServingError
from serving.runfolder import RunFolder
from tools.bench import profile, report, threads
from tools.bench.bare import fastest
from tools.bench.common import TASKS, Result, Speeds
from tools.bench.gpu import verdict
from tools.bench.load import Load, Sample, summarise
from tools.bench.peak import gflop, multiplications
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
        "litserve": result("LitServe, tuned by hand, 16 clients", 15.0),
        "rest": result("REST, 16 clients", 18.0, 400.0, 500.0, 800.0, memory=650 * MIB),
        "grpc": result("gRPC, 16 clients", 18.0),
        "lone": result("REST, lone client", 14.7, 68.0),
        "large": result("REST, 16 clients, 12 MP", 10.8),
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
    assert lines == [
        "net, REST, 16 clients",
        "    0.45 of the bare network, batch 8",
        "    0.50 of the bare pipeline, batch 8",
    ]
    assert report.headline("net", [fast, slow, slow]) == (
        "net, REST, 16 clients: 10.00 pictures/s, 0.67 times LitServe, tuned by hand; "
        "1.11 times stock, one worker; 10.00 times stock, defaults"
    )


def test_the_headline_names_the_strongest_rival_first() -> None:
    """Not every network has every rival."""
    weak = measured(litserve=result("", 2.0))
    parts = report.headline("net", [weak]).split("; ")
    assert [part.partition(" times ")[2] for part in parts] == [
        "stock, one worker",
        "stock, defaults",
        "LitServe, tuned by hand",
    ]
    del weak["litserve"]
    assert "LitServe" not in report.headline("net", [weak])


def engine_round(**changes: Result) -> dict[str, Result]:
    """A round of the engines in which every goal is met exactly, apart from ``changes``."""
    return {
        "bfloat16 first lone": result("openvino bfloat16, lone", 1, 40.0),
        "bfloat16 second lone": result("torchscript bfloat16, lone", 1, 50.0),
        "bfloat16 first many": result("openvino bfloat16, many", 22.0),
        "bfloat16 second many": result("torchscript bfloat16, many", 20.0),
        "float32 first lone": result("openvino float32, lone", 1, 75.0),
        "float32 second lone": result("torchscript float32, lone", 1, 100.0),
        "int8 first many": result("openvino int8, many", 36.0),
        "int8 second many": result("openvino bfloat16, many", 20.0),
        **changes,
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, None),
        ({"bfloat16 first lone": result("", 1, 41.0)}, "net, lone client: bfloat16 p50"),
        ({"bfloat16 first many": result("", 21.9)}, "net, 16 clients: bfloat16 times TorchScript"),
        ({"float32 first lone": result("", 1, 76.0)}, "net, lone client: float32 p50"),
        ({"int8 first many": result("", 35.9)}, "net, 16 clients: int8 times bfloat16"),
    ],
)
def test_each_goal_of_the_engines_can_be_missed(
    change: dict[str, Result], text: str | None
) -> None:
    lines = report.engine_goals("net", TASKS["classify"], [engine_round(**change)])
    assert len(lines) == 4
    found = [line for line in lines if "NOT met" in line]
    assert len(found) == (text is not None)
    assert all(text and line.startswith(text) for line in found)


def test_a_goal_that_was_not_measured_says_so() -> None:
    """A CPU without bfloat16, an archive without int8, one engine only."""
    names = "float32 first lone", "float32 second lone"
    rounds = [{name: engine_round()[name] for name in names}]
    verdicts = [line[-12:] for line in report.engine_goals("net", TASKS["classify"], rounds)]
    assert [verdict == "not measured" for verdict in verdicts] == [True, True, False, True]
    (bfloat16, float32) = report.engine_goals("net", TASKS["translate"], [])
    assert bfloat16.endswith("not measured")
    assert float32.endswith("not measured")


def test_the_share_of_the_peak_is_that_of_the_precision() -> None:
    """16 GFLOP in 40 ms are 400 GFLOPS."""
    by_batch = {1: 0.040, 2: 0.035, 8: 0.032, 4: 0.033}
    speeds: Speeds = {("openvino", "bfloat16"): by_batch, ("openvino", "int8"): {1: 0.02}}
    lines = report.speeds("net", 16.0, speeds, {"float32": 200.0, "bfloat16": 500.0}).splitlines()
    assert lines[2].split()[-6:] == ["1", "40.0", "0.80", "8", "32.0", "1.00"]
    assert lines[3].split()[-6:] == ["1", "20.0", "nan", "1", "20.0", "nan"]


def test_a_multiplication_and_an_addition_are_two_operations() -> None:
    """ResNet-101 has 7.8 G multiplications with additions at 224x224: torchvision's GFLOPS."""
    network = registered()["resnet101"]
    assert gflop(network, network.spec(), (224, 224)) == pytest.approx(2 * 7.801, rel=1e-3)
    network = registered()["cyclegan"]
    small, large = (gflop(network, network.spec(), size) for size in ((256, 256), (512, 256)))
    assert large == pytest.approx(2 * small)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_every_way_to_multiply_gives_the_product(dtype: torch.dtype) -> None:
    matrix = torch.randint(-8, 8, (64, 64))
    for make in multiplications(dtype):
        product = make(matrix.to(dtype))().double().squeeze()
        assert torch.equal(product, (matrix @ matrix).double())


def test_workers_are_compared_by_medians() -> None:
    def rounds(*rates: float) -> list[tuple[Result, Result]]:
        return [(result("", 1, 1e3 / rate), result("", rate)) for rate in rates]

    lines = threads.table("net", {1: rounds(10.0, 20.0, 90.0), 2: rounds(5.0)}).splitlines()
    assert [line.split()[-2:] for line in lines[1:]] == [["20.00", "50.0"], ["5.00", "200.0"]]


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


def test_a_profile_needs_a_server(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"no server of .* is running: `make start RUN="):
        profile.run(RunFolder(tmp_path / "run"))
