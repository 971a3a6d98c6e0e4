"""Cores and memory as a container may use them, and a Java that is new enough."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving import machine
from serving.machine import count_cores, find_java, java_version

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", CORES),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("6400000 100000\n", CORES),
        (f"{100_000 * CORES - 50_000} 100000\n", CORES),
        ("nonsense", CORES),
    ],
)
def test_the_cpu_quota_counts(tmp_path: Path, text: str, expected: int) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert count_cores(quota) == expected


def test_without_cgroups_affinity_counts(tmp_path: Path) -> None:
    assert count_cores(tmp_path / "none") == CORES
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(affinity)})
    try:
        assert count_cores(tmp_path / "none") == 1
    finally:
        os.sched_setaffinity(0, affinity)


def test_the_memory_limit_counts(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    free = machine.free_memory(limit)
    assert free > 2**28
    limit.write_text("max\n")
    assert machine.free_memory(limit) > free // 2
    limit.write_text(f"{2**20}\n")
    assert machine.free_memory(limit) == 2**20


def test_an_old_java_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(old.parent))
    assert java_version(old) == 8
    java = find_java()
    assert java.path != old
    assert java_version(java.path) == java.version
    assert java.version >= machine.OLDEST_JAVA
