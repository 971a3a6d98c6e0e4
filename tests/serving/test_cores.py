"""Cores are counted as a container is allowed them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.cores import available

MACHINE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", MACHINE),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("6400000 100000\n", MACHINE),
        (f"{100_000 * MACHINE - 50_000} 100000\n", MACHINE),
        ("nonsense", MACHINE),
    ],
)
def test_the_quota_counts(tmp_path: Path, text: str, expected: int) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert available(quota) == expected


def test_without_cgroups_affinity_counts(tmp_path: Path) -> None:
    assert available(tmp_path / "none") == MACHINE
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    try:
        assert available(tmp_path / "none") == 1
    finally:
        os.sched_setaffinity(0, range(MACHINE))
