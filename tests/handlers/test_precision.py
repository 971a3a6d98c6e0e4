"""Reduced precision where device and weights allow it, float32 otherwise, and always told why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from handlers.network.precision import choose
from handlers.pictures.pool import Pixels
from handlers.settings import PRECISION_VARIABLE
from handlers.torchserve import Handler

Load = Callable[..., Handler]

GATE = {
    "bfloat16": {"passed": False, "summary": "logits off by 5%"},
    "float16": {"passed": True, "summary": "logits off by 0.5%"},
}
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def native(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has)


def test_auto_heeds_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    native(monkeypatch, True)
    assert choose("auto", GPU, GATE)[0] == "float16"
    precision, why = choose("auto", CPU, GATE)
    assert precision == "float32"
    assert why == "these weights failed the gate for bfloat16: logits off by 5%"
    passed = {"bfloat16": {"passed": True, "summary": "fine"}}
    assert choose("auto", CPU, passed)[0] == "bfloat16"
    assert choose("auto", GPU, {}) == (
        "float32",
        "the artefact has no figures for float16: export it again",
    )


def test_auto_is_float32_where_the_cpu_would_emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    native(monkeypatch, False)
    passed = {"bfloat16": {"passed": True, "summary": "fine"}}
    assert choose("auto", CPU, passed)[0] == "float32"


def test_auto_is_float32_where_the_instructions_are_hidden() -> None:
    """`ONEDNN_MAX_CPU_ISA` keeps oneDNN from using what the CPU has."""
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
def test_what_is_asked_for_is_taken(wanted: str) -> None:
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
    native(monkeypatch, True)
    caplog.set_level("INFO")
    handler = load(tmp_path / "bad.pt", precision="auto")
    assert handler.service.engine.precision == "float32"
    assert (
        "in float32 (these weights failed the gate for bfloat16: logits off by 5%)" in caplog.text
    )
    described = handler.service.describe()
    assert described["precision"] == "float32"
    assert described["precisions"]["bfloat16"]["passed"] is False


def test_the_variable_wins_over_the_yaml(
    artefact: Callable[..., Path], load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artefact()
    assert load(path, precision="bfloat16").service.engine.precision == "bfloat16"
    monkeypatch.setenv(PRECISION_VARIABLE, "float32")
    assert load(path, precision="bfloat16").service.engine.precision == "float32"


def test_the_last_layers_stay_in_float32(bfloat16_resnet: Handler) -> None:
    """In bfloat16 two logits that differ by less than 1 in 256 would be equal."""
    network = bfloat16_resnet.service.engine
    black = network.preprocess([Pixels((224, 224), bytearray(224 * 224 * 3))])
    assert black.dtype == torch.bfloat16
    with torch.inference_mode():
        logits = network._network(black)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
