"""Reduced precision is used if the device and the weights allow it, and the reason is reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from handlers.network.precision import choose
from handlers.pictures.pool import Pixels
from handlers.torchserve import Handler
from tests.handlers.support import Load

GATE = {
    "bfloat16": {"passed": False, "summary": "logits off by 5%"},
    "float16": {"passed": True, "summary": "logits off by 0.5%"},
}
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def set_native_bfloat16(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    """Make the CPU look as if it has, or lacks, bfloat16 instructions."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has)


def test_auto_follows_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    set_native_bfloat16(monkeypatch, True)
    assert choose("auto", GPU, GATE)[0] == "float16"
    precision, reason = choose("auto", CPU, GATE)
    assert precision == "float32"
    assert reason == "these weights failed the gate for bfloat16: logits off by 5%"
    passed = {"bfloat16": {"passed": True, "summary": "fine"}}
    assert choose("auto", CPU, passed)[0] == "bfloat16"
    assert choose("auto", GPU, {}) == (
        "float32",
        "the artefact has no gate result for float16: export it again",
    )


def test_auto_is_float32_if_the_cpu_would_emulate_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    set_native_bfloat16(monkeypatch, False)
    passed = {"bfloat16": {"passed": True, "summary": "fine"}}
    assert choose("auto", CPU, passed)[0] == "float32"


def test_auto_is_float32_if_the_instructions_are_hidden() -> None:
    """`ONEDNN_MAX_CPU_ISA` keeps oneDNN from using the CPU's instructions."""
    code = (
        "import torch; from handlers.network.precision import choose;"
        "gate = {'bfloat16': {'passed': True, 'summary': 'fine'}};"
        "print(choose('auto', torch.device('cpu'), gate)[0])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.stdout == "float32\n", run.stderr


@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "float16"])
def test_a_precision_that_is_asked_for_is_used(wanted: str) -> None:
    assert choose(wanted, CPU, GATE)[0] == wanted


def test_weights_that_failed_are_served_in_float32_and_the_log_says_why(
    model_store: Path,
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    extra: dict[str, Any] = {"model.json": b"", "golden_input.f32": b"", "golden_output.f32": b""}
    network = torch.jit.load(model_store / "cyclegan.pt", _extra_files=extra)
    metadata = json.loads(extra["model.json"])
    metadata["precisions"]["bfloat16"] = GATE["bfloat16"]
    torch.jit.save(
        network, tmp_path / "bad.pt", {**extra, "model.json": json.dumps(metadata).encode()}
    )
    set_native_bfloat16(monkeypatch, True)
    caplog.set_level("INFO")
    handler = load(tmp_path / "bad.pt", precision="auto")
    assert handler.service.engine.precision == "float32"
    assert (
        "in float32 (these weights failed the gate for bfloat16: logits off by 5%)" in caplog.text
    )
    described = handler.service.describe()
    assert described["precision"] == "float32"
    assert described["precisions"]["bfloat16"]["passed"] is False


def test_the_last_layers_stay_in_float32(bfloat16_resnet: Handler) -> None:
    """In bfloat16, logits that differ by less than 1 in 256 would be equal."""
    engine = bfloat16_resnet.service.engine
    with torch.inference_mode():
        logits = engine(engine.preprocess([Pixels((224, 224), bytearray(224 * 224 * 3))]))
    assert not torch.equal(logits, logits.bfloat16().float())
