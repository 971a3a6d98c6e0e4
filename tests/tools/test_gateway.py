"""`make bench-gateway`: its arithmetic, from invented measurements, and one small real part."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from serving.errors import ServingError
from tests.running import Command
from tools.bench.common import Result
from tools.bench.load import Sample
from tools.gateway import attacks, cost, faults
from tools.gateway.common import errors, latency

pytestmark = pytest.mark.slow


def answers(*ms: float, every_s: float = 1.0) -> list[Sample]:
    """An answer a second, each after ``ms``."""
    return [Sample(n * every_s, n * every_s + each / 1e3, "") for n, each in enumerate(ms)]


REFUSED = Sample(1.0, 1.1, "429 TooManyRequests")


def test_errors_are_no_latencies() -> None:
    assert latency([*answers(*range(1, 101)), REFUSED], 95) == pytest.approx(95)
    assert errors([REFUSED, *answers(1.0), REFUSED]) == "429 TooManyRequests: 2"
    with pytest.raises(ServingError, match="429 TooManyRequests: 1"):
        latency([REFUSED], 50)


def test_cost_is_the_gateway_over_the_bare_server() -> None:
    key = "net", "REST, 1 client(s)"
    bare, behind = Result("", 10.0, (100.0, 0.0, 0.0)), Result("", 8.0, (110.0, 0.0, 0.0))
    lines = list(cost.table({key: bare}, {key: behind}))
    assert lines[1].split() == [
        "net,", "REST,", "1", "client(s)", "100.00", "110.00", "1.100", "10.00", "8.00", "0.800",
    ]  # fmt: skip


@pytest.mark.parametrize(("ms", "verdict"), [(300.0, "  met"), (301.0, "NOT met")])
def test_fairness_is_the_ratio_of_the_tails(ms: float, verdict: str) -> None:
    alone, beside = answers(*[100.0] * 60), answers(*[ms] * 60)
    greedy = [*answers(*[1.0] * 120), REFUSED]
    lines = list(attacks.contest("net", alone, beside, greedy))
    assert "polite 1.01, greedy 2.02, both 3.04" in lines[2]
    assert lines[3] == "net, greedy client's errors: 429 TooManyRequests: 1"
    assert lines[-1].endswith(verdict)


def test_uploads_are_counted_by_how_they_ended() -> None:
    assert list(attacks.endings([("408", 20.2), ("closed connection", 3.0), ("408", 21.0)])) == [
        "2 uploads ended with 408, after 20.2 to 21.0 s",
        "1 uploads ended with closed connection, after 3.0 to 3.0 s",
    ]


LOST = Sample(3.0, 5.0, "507")


@pytest.mark.parametrize(
    ("gone", "unready", "samples", "ready"),
    [
        (2.0, 0.0, [Sample(2.5, 6.0, "")], 6.0),
        (2.0, 7.0, [Sample(2.5, 6.0, "")], 7.0),  # /readyz comes last
        (math.inf, 0.0, [Sample(2.5, 6.0, "")], None),  # the process is still there
        (2.0, 0.0, [Sample(1.5, 2.5, "")], None),  # answered by the one that was killed
        (2.0, 0.0, [Sample(2.5, 4.0, ""), LOST], None),  # and then lost
        (2.0, 0.0, [Sample(2.5, 4.0, ""), LOST, Sample(5.0, 8.0, "")], 8.0),
    ],
)
def test_the_server_is_ready_when_all_is_well_again(
    gone: float, unready: float, samples: Sequence[Sample], ready: float | None
) -> None:
    assert faults.ready_at(gone, unready, samples, now=100.0) == ready
    if ready:
        assert faults.ready_at(gone, unready, samples, now=ready + 1.0) is None


def test_what_a_fault_cost() -> None:
    before = Sample(0.0, 0.9, "503 Unavailable")
    line = faults.report("envoy, SIGKILL", 1.0, 3.5, [before, *answers(1500.0, 100.0), LOST])
    assert line.split() == [
        "envoy,", "SIGKILL", "2.5", "s", "2", "1", "2.0", "s", "507:", "1",
    ]  # fmt: skip
    assert "never" in faults.report("envoy, SIGKILL", 1.0, None, [LOST])


def test_an_unknown_part_is_refused(tool: Command) -> None:
    done = tool("gateway", "speed")
    assert done.returncode == 2
    assert "choose from cost, fair, idle, stalled, faults, traces" in done.stderr
