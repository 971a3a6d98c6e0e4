"""OpenVINO runs a network on a CPU if the export proved it there, else TorchScript does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import openvino as ov
import pytest
import torch
from torch import nn

from export.artefact import append_model
from handlers.errors import LoadError
from handlers.network.engine import Engine
from tests.conversion import converted
from tests.handlers.support import Load, WriteArtefact, tiny_metadata

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
PASSED = {"passed": True, "summary": "float32 is exact", "precisions": {}}


@pytest.fixture
def tiny(artefact: WriteArtefact) -> Path:
    """An artefact of one operation, tanh, for both engines."""
    path = artefact(model__json=tiny_metadata(openvino=PASSED))
    append_model(path, "openvino", converted(nn.Tanh()))
    return path


def test_auto_is_openvino_on_a_cpu(tiny: Path, load: Load) -> None:
    service = load(tiny).service
    assert service.engine.name == "openvino"
    assert service.describe()["engine"] == "openvino"
    assert "proved it: float32 is exact" in service.describe()["engine_reason"]


@pytest.mark.parametrize(
    ("engines", "reason"),
    [
        ({}, "the artefact has no network for it: export it again"),
        ({"openvino": {"passed": False, "summary": "it cannot be converted"}}, "be converted"),
    ],
)
def test_torchscript_runs_what_the_export_did_not_prove(
    artefact: WriteArtefact, engines: dict[str, Any], reason: str
) -> None:
    path = artefact(model__json=tiny_metadata(**engines))
    engine = Engine(path, CPU, "float32")
    assert (engine.name, reason in engine.reason) == ("torchscript", True)
    with pytest.raises(LoadError, match=reason):
        Engine(path, CPU, "float32", "openvino")


def test_a_precision_that_failed_in_openvino_is_not_run_there(artefact: WriteArtefact) -> None:
    failed = {"bfloat16": {"passed": False, "summary": "pictures differ by 3/255"}}
    path = artefact(model__json=tiny_metadata(openvino={**PASSED, "precisions": failed}))
    append_model(path, "openvino", converted(nn.Tanh()))
    assert Engine(path, CPU, "float32").name == "openvino"
    engine = Engine(path, CPU, "bfloat16")
    assert engine.name == "torchscript"
    assert "pictures differ by 3/255" in engine.reason


def test_float16_runs_in_torchscript(tiny: Path) -> None:
    assert Engine(tiny, CPU, "float16").name == "torchscript"


def test_the_yaml_chooses_the_engine(tiny: Path, load: Load) -> None:
    for name in ("torchscript", "openvino"):
        yaml = {"handler": {"engine": name}}
        assert load(tiny, yaml=yaml).service.engine.name == name


def test_without_the_package_torchscript_runs(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "openvino is not installed" in Engine(tiny, CPU, "float32").reason


@pytest.mark.parametrize("damage", ["another network", "no network", "not a network"])
def test_a_faulty_network_is_not_run(
    artefact: WriteArtefact, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """TorchScript answers instead, and the log shows it; a wanted OpenVINO fails the load."""
    other = {"openvino__xml": b"<net/>"} if damage == "not a network" else {}
    path = artefact(model__json=tiny_metadata(openvino=PASSED), **other)
    if damage == "another network":
        append_model(path, "openvino", converted(nn.Hardtanh()))
    assert Engine(path, CPU, "float32").name == "torchscript"
    assert "OpenVINO failed" in caplog.text
    with pytest.raises(LoadError, match=r"golden example|OpenVINO cannot load"):
        Engine(path, CPU, "float32", "openvino")


def test_openvino_uses_as_many_threads_as_pytorch(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OMP_NUM_THREADS, a worker's share of the cores, decides both."""
    compiled = []
    compile_model = ov.Core.compile_model

    def spy(*arguments: Any) -> Any:
        compiled.append(compile_model(*arguments))
        return compiled[-1]

    monkeypatch.setattr(ov.Core, "compile_model", spy)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    Engine(tiny, CPU, "float32")
    assert {network.get_property("INFERENCE_NUM_THREADS") for network in compiled} == {1}


def test_a_signal_after_networks_have_gone(tiny: Path) -> None:
    """OpenVINO's cores may leave a signal stack that is no longer there."""
    code = """if True:
        import gc, os, signal, sys, torch
        from pathlib import Path
        from handlers.network.engine import Engine
        engines = [Engine(Path(sys.argv[1]), torch.device("cpu"), "float32") for _ in range(3)]
        assert {engine.name for engine in engines} == {"openvino"}
        while engines:
            engines.pop(0)
            gc.collect()
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            print("interrupted")
    """
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, str(tiny)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "interrupted\n"), run.stderr


@pytest.mark.parametrize("size", [(1, 64, 64), (3, 64, 96), (1, 100, 52), (2, 64, 64)])
def test_both_engines_give_the_same_for_any_size(
    model_store: Path, size: tuple[int, int, int]
) -> None:
    n, height, width = size
    batch = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        one, other = (
            Engine(model_store / "cyclegan.pt", CPU, "float32", name)(batch)
            for name in ("openvino", "torchscript")
        )
    assert (one - other).abs().max() < 0.5 * 2 / 255
