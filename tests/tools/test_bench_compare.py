"""`make bench` with invented servers and measurements: what is measured, printed and written."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from export.networks import registered
from serving.config import Config
from serving.runfolder import RunFolder
from tools import bundle
from tools.bench import compare, engines, lit
from tools.bench.common import Result
from tools.bench.load import Load
from tools.bench.pictures import SIZES

CONFIG = Config(Path("config.properties"), {"inference_address": "http://127.0.0.1:8080"})


SPEEDS = {("torchscript", "float32"): {1: 0.1, 2: 0.08}}


class FakeManagement:
    """One worker of every model: this process. The second server of a pair has another engine."""

    def __init__(self, engine: str) -> None:
        self._engine = engine

    @classmethod
    def of(cls, folder: RunFolder) -> FakeManagement:
        return cls("torchscript" if folder.path.name == "side-1" else "openvino")

    def describe(self, model: str) -> dict[str, str]:
        reason = f"{model} is invented"
        chosen = {"engine": self._engine, "precision": "float32"}
        return chosen | {"engine_reason": reason, "precision_reason": reason}

    def workers(self, model: str) -> list[Any]:
        return [SimpleNamespace(pid=os.getpid())]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Load]:
    """Replaces whatever starts a process; the loads that were measured."""
    measured: list[Load] = []

    def measure(load: Load) -> Result:
        measured.append(load)
        late = load.rate > 9
        return Result(load.label, load.rate or 10.0, (100.0, 600.0 if late else 100.0, 700.0))

    def floor(work: str, seconds: float, batches: tuple[int, ...]) -> Result:
        return Result(f"bare {work}, batch {batches[-1]}", 11.0, (90.0,), 5e8)

    def artefact(pt: Path) -> Any:
        metadata = SimpleNamespace(precisions={}, spec=registered()[pt.stem].spec())
        return SimpleNamespace(metadata=metadata)

    @contextlib.contextmanager
    def give(value: Any) -> Iterator[Any]:
        yield value

    started = CONFIG, 7.5
    monkeypatch.setattr(compare, "measure", measure)
    monkeypatch.setattr(compare, "bare", lambda *_: give(floor))
    monkeypatch.setattr(compare, "stock", lambda *_: give("http://127.0.0.1:1"))
    monkeypatch.setattr(compare, "archive", lambda *_: None)
    monkeypatch.setattr(lit.Server, "started", lambda *_: give("http://127.0.0.1:2"))
    monkeypatch.setattr(lit.Server, "best", lambda *_: lit.TUNINGS[-1])
    monkeypatch.setattr(compare, "peaks", lambda *_: {"float32": 200.0})
    monkeypatch.setattr(engines, "engines", lambda *_: ((64, 64), SPEEDS))
    monkeypatch.setattr(engines, "measure", measure)
    monkeypatch.setattr(engines, "read", artefact)
    monkeypatch.setattr(engines, "Management", FakeManagement)
    monkeypatch.setattr(compare, "photographs", lambda _: dict.fromkeys(SIZES, tmp_path))
    monkeypatch.setattr(compare, "Management", FakeManagement)
    monkeypatch.setattr(compare, "RUN", tmp_path)
    monkeypatch.setattr(compare, "QUIET_S", 0.01)
    monkeypatch.setattr(bundle, "started", lambda *_, **__: give(started))
    return measured


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Empty archives of every network."""
    for name in registered():
        (tmp_path / f"{name}.mar").touch()
    return tmp_path


def test_a_quick_run_prints_every_table_and_goal(
    loads: list[Load], store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.run(CONFIG, "cpu", True, store) == 0
    printed = capsys.readouterr().out
    for name, network in registered().items():
        clients = 16 if network.task == "classify" else 4
        assert f"\n{name}, precision float32: {name} is invented\n" in printed
        assert f"\n{name}, engine openvino: {name} is invented\n" in printed
        rivals = "1.00 times LitServe, tuned by hand; " if clients == 16 else ""
        rivals += "1.00 times stock, defaults; 1.00 times stock, one worker"
        head = f"{name}, REST, {clients} clients: 10.00 pictures/s, {rivals}\n"
        assert head in printed
        assert f"\n{name}, REST, {clients} clients\n    0.91 of the bare network" in printed
        assert re.search(f"\n{name}, lone client: float32 p50 over TorchScript's +1.00 ", printed)
        assert f"\n{name}: gRPC throughput over REST" in printed
        assert {load.clients for load in loads if load.model == name} == {1, clients}
    assert "\nstart to true answers of both models                          7.50" in printed
    assert not (tmp_path / "bench.png").exists()
    facts = json.loads((tmp_path / "bench.json").read_text())
    assert [len(rounds) for rounds in facts["rounds"].values()] == [1, 1]
    assert facts["report"][0] in printed
    for (served,) in facts["served"].values():
        labels = [served[f"float32 {side} lone"]["label"] for side in ("first", "second")]
        assert labels == ["openvino float32, lone", "torchscript float32, lone"]


# As many as the gateway lets in from one address.
CLIENTS = {"resnet101": [1, 4, 16, 32], "cyclegan": [1, 2, 4, 8]}


def test_a_full_run_sweeps_to_the_knee(loads: list[Load], store: Path, tmp_path: Path) -> None:
    """Alone a request takes 100 ms: a p95 of 600 is beyond the knee."""
    compare.run(CONFIG, "cpu", False, store)
    facts = json.loads((tmp_path / "bench.json").read_text())
    for model, (closed, opened) in facts["curves"].items():
        assert [float(clients) for clients in closed] == CLIENTS[model]
        assert [float(rate) for rate in opened] == pytest.approx([5.0, 7.0, 9.0, 10.0])
        assert len(facts["rounds"][model]) == 3
        # Two points are those of the last round.
        assert closed["1.0"]["label"] == "REST, lone client"
        many = f"REST, {16 if model == 'resnet101' else 4} clients"
        assert sum(load.label == many for load in loads if load.model == model) == 3
    assert (tmp_path / "bench.png").stat().st_size > 10_000
