"""What stands beside the figures of a bench."""

from __future__ import annotations

import os

import pytest

from benchmarks.machine import facts, summary


def test_hidden_instructions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert "hidden" not in summary(facts("cpu"))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    told = summary(facts("cpu"))
    assert "newer instructions hidden by ONEDNN_MAX_CPU_ISA=AVX2" in told
    assert f"{os.cpu_count()} cores" in told
