"""An export with int8: what is in the files, what serves it, and what refuses to."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export import archive
from export.__main__ import _parse
from export.errors import ExportError
from export.int8 import make, options
from export.int8.options import Int8Options
from export.networks import find
from export.pipeline import Job, export
from handlers.errors import LoadError
from handlers.network.artefact import read
from handlers.network.engine import Engine
from handlers.network.precision import choose
from handlers.request import Message
from handlers.service import Service
from handlers.settings import Settings

pytestmark = pytest.mark.slow

OWN = Path(__file__).parents[1] / "networks" / "tiny_classifier.py"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: dict[str, Image.Image]) -> Path:
    """Sixty crops of photographs."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name, photograph in photographs.items():
        for i in range(20):
            left, top = random.integers((photograph.width - 100, photograph.height - 100))
            photograph.crop((left, top, left + 100, top + 100)).save(folder / f"{name}{i}.png")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """The tiny classifier with int8. Do not write to it."""
    return _export(folder, tmp_path_factory.mktemp("store"), Int8Options(folder))


def _export(folder: Path, store: Path, int8: Int8Options) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "RUN", store / "run")
        export([Job(find(str(OWN)), "random", int8=int8)], store)
    return store


@pytest.fixture
def alone(store: Path, tmp_path: Path) -> Path:
    """The artefact in an archive of int8 alone."""
    for suffix in ("pt", "json"):
        shutil.copy(store / f"tiny_classifier.{suffix}", tmp_path)
    receipt = tmp_path / "tiny_classifier.json"
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"int8_alone": True}))
    mar = tmp_path / "tiny_classifier.mar"
    assert archive.build(find(str(OWN)), tmp_path / "tiny_classifier.pt", mar)
    with zipfile.ZipFile(mar) as file:
        file.extract("tiny_classifier.pt", tmp_path / "unpacked")
    return tmp_path / "unpacked" / "tiny_classifier.pt"


def test_the_files_have_int8_and_its_gate(store: Path) -> None:
    artefact = read(store / "tiny_classifier.pt")
    figures = artefact.metadata.precisions["int8"]
    assert figures == json.loads((store / "tiny_classifier.json").read_text())["precisions"]["int8"]
    assert figures["passed"]
    assert figures["photographs"] == 30
    assert not artefact.is_int8_alone
    assert (store / "run" / "int8-tiny_classifier.png").is_file()


def test_it_serves_int8_only_if_asked(store: Path) -> None:
    pt = store / "tiny_classifier.pt"
    plain, int8 = Engine(pt, CPU), Engine(pt, CPU, "int8")
    assert plain.precision != "int8"
    assert (int8.precision, int8.name) == ("int8", "openvino")
    batch = read(pt).golden_input.repeat(3, 1, 1, 1)
    difference = (int8(batch) - plain(batch)).abs().max()
    assert 0 < difference < 0.2


def test_an_archive_of_int8_alone_answers(alone: Path, store: Path, folder: Path) -> None:
    service = Service(alone, settings=Settings())
    whole = Service(store / "tiny_classifier.pt", settings=Settings(precision="int8"))
    message = Message(body=next(folder.iterdir()).read_bytes())
    try:
        answers = [one.answer([message])[0] for one in (service, whole)]
        assert answers[0] == answers[1]
        assert service.describe()["precision"] == "int8"
        assert "int8 alone" in service.describe()["precision_reason"]
        assert service.metadata == whole.metadata
    finally:
        service.close()
        whole.close()


@pytest.mark.parametrize(
    ("precision", "engine", "reason"),
    [
        ("float32", "auto", "int8 alone, not float32: export it without INT8_ONLY"),
        ("int8", "torchscript", "cannot run in int8: TorchScript cannot"),
    ],
)
def test_what_an_archive_of_int8_alone_refuses(
    precision: str, engine: str, reason: str, alone: Path
) -> None:
    with pytest.raises(LoadError, match=reason):
        Engine(alone, CPU, precision, engine)


def test_a_gpu_is_refused(store: Path) -> None:
    with pytest.raises(LoadError, match="it runs on a CPU, not on cuda"):
        Engine(store / "tiny_classifier.pt", torch.device("cuda"), "int8")


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        ({}, "no network in int8: make export INT8=FOLDER"),
        ({"int8": {"passed": False, "summary": "91%"}}, "failed the gate for int8: 91%"),
    ],
)
def test_int8_is_refused_without_its_gate(gate: dict[str, object], reason: str) -> None:
    with pytest.raises(LoadError, match=reason):
        choose("int8", CPU, gate)


def test_auto_never_means_int8() -> None:
    passed = {"passed": True, "summary": "fine"}
    gate = {"int8": passed, "bfloat16": passed, "float16": passed}
    assert choose("auto", CPU, gate)[0] != "int8"
    assert choose("auto", torch.device("cuda"), gate)[0] != "int8"


def test_a_damaged_byte_is_found(alone: Path) -> None:
    data = bytearray(alone.read_bytes())
    with zipfile.ZipFile(alone) as file:
        constants = file.getinfo("tiny_classifier/extra/int8.bin")
    data[constants.header_offset + 30 + len(constants.filename) + constants.file_size // 2] ^= 1
    alone.write_bytes(data)
    with pytest.raises(LoadError, match=r"damaged: .*int8\.bin"):
        Engine(alone, CPU)


def test_another_output_than_at_export_is_found(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that compute wrongly, from a file that is whole."""
    from handlers.network import golden, openvino

    def wrong(*arguments: object, **options: object) -> None:
        network = arguments[0]
        assert callable(network)
        golden.check(lambda batch: network(batch) * 1.2, *arguments[1:], **options)  # type: ignore[arg-type]

    monkeypatch.setattr(openvino, "check", wrong)
    with pytest.raises(LoadError, match="misses its golden example in int8"):
        Engine(store / "tiny_classifier.pt", CPU, "int8")


def test_a_failed_gate_leaves_int8_out(folder: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The export succeeds, with an archive that is complete though int8 alone was wanted."""
    monkeypatch.setattr(
        "export.int8.judge.agreement_of", lambda judged: 0.5 if len(judged) == 30 else 1.0
    )
    _export(folder, tmp_path, Int8Options(folder, agreement=0.9, alone=True))
    artefact = read(tmp_path / "tiny_classifier.pt")
    assert artefact.metadata.precisions["int8"]["passed"] is False
    with pytest.raises(LoadError, match="failed the gate for int8"):
        Engine(tmp_path / "tiny_classifier.pt", CPU, "int8")
    assert not any("int8" in name for name in zipfile.ZipFile(artefact.path).namelist())
    assert json.loads((tmp_path / "tiny_classifier.json").read_text())["int8_alone"] is False


def test_photographs_and_limits_are_inputs(folder: Path, tmp_path: Path) -> None:
    spec = find(str(OWN)).spec()
    first = Int8Options(folder).read(spec)
    shutil.copytree(folder, tmp_path / "moved")
    moved = Int8Options(tmp_path / "moved")
    assert moved.read(spec).fingerprint() == first.fingerprint()
    for changed in ({"agreement": 0.9}, {"alone": True}):
        assert dataclasses.replace(moved, **changed).read(spec).fingerprint() != first.fingerprint()
    next((tmp_path / "moved").iterdir()).unlink()
    assert moved.read(spec).fingerprint() != first.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--int8-only"], "need INT8=FOLDER"),
        (["--int8-agreement", "0.9"], "need INT8=FOLDER"),
        (["--int8", "x", "--int8-agreement", "98"], "above 0 and at most 1: 98"),
    ],
)
def test_options_that_are_refused(arguments: list[str], reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        _parse(["resnet101", *arguments])


def test_a_production_installation_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "PACKAGES", {"no_such_module": "NNCF"})
    with pytest.raises(ExportError, match="INT8 needs NNCF: make install PRODUCTION= installs it"):
        _parse(["resnet101", "--int8", "x"])
