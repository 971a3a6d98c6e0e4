"""What a person sees at the end: tables and a picture."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from benchmarks.drawing import Curves, draw
from benchmarks.goals import Goal
from benchmarks.report import figure_table, goal_table, ratio_table
from tests.benchmarks.samples import a_round, outcome


def test_goals_say_whether_they_are_met() -> None:
    table = goal_table(
        [Goal("fast", 0.95, 0.9), Goal("late", 9.0, 8.0, at_most=True, unit="ms")]
    ).splitlines()
    assert table[1].split() == ["fast", "0.95", ">=", "0.90", "met"]
    assert table[2].split() == ["late", "9.00", "<=", "8.00", "ms", "NOT", "met"]


def test_figures_are_medians_over_the_rounds() -> None:
    rounds = [a_round(grpc=outcome(rate, p50=500.0, p99=900.0)) for rate in (1.0, 20.0, 30.0)]
    lines = figure_table("resnet101", rounds).splitlines()
    (grpc,) = [line.split() for line in lines if "gRPC, 16 clients" in line]
    assert grpc[-4:] == ["20.00", "500.0", "900.0", "900.0"]
    assert "bare network, batch 8" in lines[1]
    assert "worker 650 MiB, bare process 500 MiB" in lines[-1]


def test_ratios_say_what_is_divided_by_what() -> None:
    rounds = [a_round(rest=outcome(rate), stock=outcome(2.0)) for rate in (1.0, 20.0, 30.0)]
    lines = [line.split() for line in ratio_table("resnet101", rounds).splitlines()]
    assert " ".join(lines[0]) == "resnet101, REST, 16 clients: 20.00 pictures/s"
    assert " ".join(lines[1]) == "0.80 of the bare network, batch 8"  # 25 pictures/s
    assert " ".join(lines[2]) == "0.88 of the bare pipeline, batch 8"
    assert " ".join(lines[3]) == "10.00 times stock, defaults"
    assert " ".join(lines[4]) == "1.96 times stock, one worker"
    assert len(lines) == 5


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is twice as slow in one round is so for both sides."""
    slow = a_round(rest=outcome(10.0), stock=outcome(1.0))
    rounds = [a_round(rest=outcome(20.0), stock=outcome(2.0)), slow, slow]
    assert "10.00 times stock, defaults" in ratio_table("resnet101", rounds)


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    rounds = {"resnet101": [a_round()], "cyclegan": [a_round(), a_round()]}
    closed = {n: outcome(20.0, 40.0 * n, 60.0 * n) for n in (1, 4, 16)}
    swept = Curves(closed, {rate: outcome(rate, 50 * rate, 90 * rate) for rate in (6.0, 12.0)})
    draw(rounds, {"resnet101": swept, "cyclegan": swept}, "a machine", tmp_path / "full.png")
    brief = Curves(closed)
    draw(rounds, {"resnet101": brief, "cyclegan": brief}, "a machine", tmp_path / "quick.png")
    with Image.open(tmp_path / "full.png") as full, Image.open(tmp_path / "quick.png") as quick:
        assert full.width > quick.width > 800
