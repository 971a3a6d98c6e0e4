"""Two servers of one machine share no port, and a node that does not start leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest

from deploy.ray import cluster
from serving.errors import ServingError

LOWS = [name.format("MIN") for name in cluster.RANGES]
HIGHS = [name.format("MAX") for name in cluster.RANGES]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An empty one."""
    variables: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", variables)
    return variables


def test_ports_inside_the_server_are_free_ones(environment: dict[str, str]) -> None:
    cluster.prepare_environment()
    chosen = {int(environment[name]) for name in (*cluster.PORTS, *LOWS)}
    assert len(chosen) == len(cluster.PORTS) + len(LOWS)
    assert not chosen & {8404, 8500, 9101, 9500, 30000, 40000}, "those of every Ray"
    for low, high in zip(LOWS, HIGHS, strict=True):
        assert int(environment[low]) < int(environment[high]) <= 65535


def test_the_shells_ports_come_first(environment: dict[str, str]) -> None:
    environment |= dict.fromkeys((*cluster.PORTS, *LOWS, *HIGHS), "1234")
    cluster.prepare_environment()
    assert {environment[name] for name in (*cluster.PORTS, *LOWS, *HIGHS)} == {"1234"}


class Nodes:
    """A cluster of which the first ``failures`` nodes do not start, but leave a process."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.left: list[subprocess.Popen[bytes]] = []

    def add_node(self, **options: object) -> None:
        assert options == {"num_cpus": 2}
        if len(self.left) < self.failures:
            self.left.append(subprocess.Popen(["sleep", "60"]))
            raise Exception("The current node timed out during startup.")


def test_a_node_that_does_not_start_has_a_second_attempt() -> None:
    for failures in (1, 2):
        nodes: Any = Nodes(failures)
        if failures == 1:
            cluster.add_node(nodes, 2)
        else:
            with pytest.raises(ServingError, match="Ray cannot start: The current node timed out"):
                cluster.add_node(nodes, 2)
        assert [process.wait(10) for process in nodes.left] == [-signal.SIGKILL] * failures
