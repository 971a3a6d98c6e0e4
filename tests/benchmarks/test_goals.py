"""Goals at their bars, beside them, and over rounds."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.goals import Goal, Round, goals
from tests.benchmarks.samples import a_round, outcome


def unmet(resnet: Round, cyclegan: Round | None = None, start_s: float = 20.0) -> list[str]:
    rounds = {"resnet101": [resnet], "cyclegan": [cyclegan or a_round()]}
    return [goal.text for goal in goals(rounds, start_s) if not goal.met]


@pytest.mark.parametrize("at_most", [False, True])
def test_a_goal_is_met_at_its_bar(at_most: bool) -> None:
    bar = Goal("speed", 1.1, 1.1, at_most)
    assert bar.met
    assert dataclasses.replace(bar, measured=1.0).met is at_most
    assert dataclasses.replace(bar, measured=1.2).met is not at_most
    assert not dataclasses.replace(bar, measured=float("nan")).met


def test_all_are_met_a_little_beyond_the_bars() -> None:
    good = a_round(rest=outcome(20.6, 400, 790), grpc=outcome(20.7), large=outcome(12.4))
    assert unmet(good, good, start_s=19.9) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pipeline": dataclasses.replace(a_round().pipeline, ms=43.0)}, "of the bare pipeline"),
        ({"pipeline": dataclasses.replace(a_round().pipeline, ms=45.0)}, "over the bare network"),
        ({"stock": outcome(9.0)}, "times stock"),
        ({"lone": outcome(14.0, p50=69.0)}, "lone client"),
        ({"rest": outcome(18.5, p50=400.0, p99=801.0)}, "p99 over p50"),
        ({"large": outcome(12.0)}, "12 MP"),
        ({"grpc": outcome(18.0)}, "resnet101: gRPC"),
        ({"worker_rss": 651 * 2**20}, "resnet101: worker memory"),
    ],
)
def test_each_can_be_missed(changes: dict[str, object], text: str) -> None:
    assert any(text in found for found in unmet(a_round(**changes)))


def test_those_of_cyclegan_are_its_own() -> None:
    slow = a_round(stock=outcome(11.0), pipeline=dataclasses.replace(a_round().pipeline, ms=40.0))
    assert [text for text in unmet(a_round(), slow) if text.startswith("cyclegan, 4")] == [
        "cyclegan, 4 clients: of the bare pipeline",
        "cyclegan, 4 clients: times a plain float32 handler",
    ]


def test_a_slow_start_misses() -> None:
    assert "start to true answers of both models" in unmet(a_round(), start_s=20.1)


def test_the_median_of_the_rounds_is_judged() -> None:
    rounds = [a_round(large=outcome(large)) for large in (1.0, 15.0, 16.0)]
    found = goals({"resnet101": rounds, "cyclegan": [a_round()]}, 1.0)
    (goal,) = [goal for goal in found if "12 MP" in goal.text]
    assert goal.measured == pytest.approx(15.0 / a_round().rest.throughput)
