"""Two servers of one machine share no port."""

from __future__ import annotations

import os

import pytest

from deploy.ray import cluster

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
