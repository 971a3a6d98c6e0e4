"""The archives: what is in them, and that they are rebuilt exactly when something has changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from export import archive
from export.errors import ExportError
from tests.specs import SPECS

ROOT = Path(__file__).parents[2]
HANDLERS = sorted((ROOT / "handlers").rglob("*.py"))

Run = Callable[..., subprocess.CompletedProcess[str]]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _state(path: Path) -> tuple[int, int, str]:
    return path.stat().st_ino, path.stat().st_mtime_ns, _digest(path)


@pytest.mark.parametrize("name", SPECS)
def test_archive_holds_these_files_and_no_others(name: str, model_store: Path) -> None:
    expected = {
        "MAR-INF/MANIFEST.json": None,
        "inputs.json": None,
        f"{name}.pt": model_store / f"{name}.pt",
        f"{name}.json": model_store / f"{name}.json",
        f"{name}.py": ROOT / "handlers" / f"{name}.py",
        f"{name}.yaml": ROOT / "export" / f"{name}.yaml",
        **{str(file.relative_to(ROOT)): file for file in HANDLERS},
    }
    with zipfile.ZipFile(model_store / f"{name}.mar") as mar:
        assert {entry for entry in mar.namelist() if not entry.endswith("/")} == set(expected)
        for entry, source in expected.items():
            if source:
                assert mar.read(entry) == source.read_bytes(), entry
        model = json.loads(mar.read("MAR-INF/MANIFEST.json"))["model"]
        inputs = json.loads(mar.read("inputs.json"))
    assert model == {
        "modelName": name,
        "modelVersion": "1.0",
        "serializedFile": f"{name}.pt",
        "handler": f"{name}.py",
        "configFile": f"{name}.yaml",
    }
    assert inputs["pt"] == _digest(model_store / f"{name}.pt")
    assert inputs["json"] == _digest(model_store / f"{name}.json")
    assert inputs["yaml"] == _digest(ROOT / "export" / f"{name}.yaml")


def test_command_leaves_what_is_current(run: Run, store: Path) -> None:
    before = {name: _state(store / f"{name}.mar") for name in SPECS}
    done = run("export.archive", "--model-store", store)
    assert done.returncode == 0
    assert done.stdout.count("unchanged") == len(SPECS)
    assert {name: _state(store / f"{name}.mar") for name in SPECS} == before


def test_command_takes_a_change_over(run: Run, store: Path) -> None:
    about, mar = store / "cyclegan.json", store / "cyclegan.mar"
    text = about.read_text().replace('"untrained"', '"renamed"')
    about.unlink()  # a hard link to what other tests read
    about.write_text(text)
    done = run("export.archive", "cyclegan", "--model-store", store)
    assert done.returncode == 0
    assert f"{mar}: archived" in done.stdout
    with zipfile.ZipFile(mar) as rebuilt:
        assert rebuilt.testzip() is None
        assert rebuilt.read("cyclegan.json").decode() == text
    assert not list(store.glob(".archive-*"))


def test_command_without_an_export_says_what_to_run(run: Run, tmp_path: Path) -> None:
    done = run("export.archive", "cyclegan", "--model-store", tmp_path)
    assert done.returncode == 1
    assert "make export" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that an archive is made of, to be edited: the .pt is a few bytes."""
    shutil.copytree(ROOT / "handlers", tmp_path / "handlers")
    shutil.copy(ROOT / "export" / "cyclegan.yaml", tmp_path)
    _write_network(tmp_path, b"a network")
    monkeypatch.setattr(archive, "HERE", tmp_path)
    monkeypatch.setattr(archive, "HANDLERS", tmp_path / "handlers")
    return tmp_path


def _write_network(sources: Path, pt: bytes) -> None:
    """``pt`` as cyclegan.pt, and the metadata that an export would leave beside it."""
    (sources / "cyclegan.pt").write_bytes(pt)
    about = {"pt": {"sha256": hashlib.sha256(pt).hexdigest(), "bytes": len(pt)}}
    (sources / "cyclegan.json").write_text(json.dumps(about))


def _build(sources: Path) -> bool:
    return archive.build("cyclegan", sources / "cyclegan.pt", sources / "cyclegan.mar")


@pytest.mark.parametrize(
    "changed",
    [
        "cyclegan.json",
        "cyclegan.yaml",
        "handlers/pictures/decode.py",
        "handlers/new.py",
        "handlers/codecs/new.py",
        "handlers/codecs/table.json",
    ],
)
def test_each_input_counts(changed: str, sources: Path) -> None:
    assert _build(sources)
    assert not _build(sources)
    (sources / changed).parent.mkdir(exist_ok=True)
    with (sources / changed).open("a") as file:
        file.write("\n")
    assert _build(sources)
    assert not _build(sources)


def test_another_network_counts(sources: Path) -> None:
    assert _build(sources)
    _write_network(sources, b"another network")
    assert _build(sources)


def test_sub_packages_are_archived_and_byte_code_is_not(sources: Path) -> None:
    codecs = sources / "handlers" / "codecs"
    (codecs / "__pycache__").mkdir(parents=True)
    (codecs / "new.py").write_text("NEW = True\n")
    (codecs / "__pycache__" / "new.cpython-311.pyc").write_bytes(b"byte code")
    _build(sources)
    with zipfile.ZipFile(sources / "cyclegan.mar") as mar:
        assert mar.read("handlers/codecs/new.py") == b"NEW = True\n"
        assert not [entry for entry in mar.namelist() if "__pycache__" in entry]
    (codecs / "__pycache__" / "new.cpython-311.pyc").write_bytes(b"other byte code")
    assert not _build(sources)


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ('{"pt": {"sha256": "' + 64 * "0" + '"}}', "sha256"),
        ("{}", "digest"),
        ("[]", "digest"),
        ("{", "digest"),
        (None, "digest"),
    ],
    ids=["another digest", "no digest", "a list", "no JSON", "no file"],
)
def test_network_without_its_digest_is_refused(
    about: str | None, reason: str, sources: Path
) -> None:
    _build(sources)
    before = _state(sources / "cyclegan.mar")
    (sources / "cyclegan.json").unlink()
    if about is not None:
        (sources / "cyclegan.json").write_text(about)
    with pytest.raises(ExportError, match=rf"{reason}.*`make export`"):
        _build(sources)
    assert _state(sources / "cyclegan.mar") == before


def test_command_refuses_flipped_bytes_and_leaves_the_old_archive(run: Run, store: Path) -> None:
    pt, mar = store / "cyclegan.pt", store / "cyclegan.mar"
    before = _state(mar)
    damaged = bytearray(pt.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 16] = bytes(byte ^ 0xFF for byte in damaged[middle : middle + 16])
    pt.unlink()  # a hard link to what other tests read
    pt.write_bytes(damaged)
    done = run("export.archive", "cyclegan", "--model-store", store)
    assert done.returncode == 1
    assert str(pt) in done.stderr
    assert "`make export`" in done.stderr
    assert "Traceback" not in done.stderr
    assert _state(mar) == before


def test_damaged_archive_is_rebuilt(sources: Path) -> None:
    _build(sources)
    mar = sources / "cyclegan.mar"
    mar.write_bytes(mar.read_bytes()[:-50])
    assert _build(sources)
    assert zipfile.ZipFile(mar).testzip() is None


def test_failed_archiver_leaves_the_old_archive(sources: Path) -> None:
    _build(sources)
    before = _state(sources / "cyclegan.mar")
    (sources / "handlers" / "cyclegan.py").unlink()
    with pytest.raises(ExportError, match="torch-model-archiver failed"):
        _build(sources)
    assert _state(sources / "cyclegan.mar") == before
    assert not list(sources.glob(".archive-*"))


def test_folder_of_the_model_s_name_in_tmp_survives(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch-model-archiver deletes $TMPDIR/<model name>, whosever it is."""
    precious = tmp_path / "tmp" / "cyclegan" / "thesis.tex"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    assert os.environ["TMPDIR"] in str(precious)
    _build(sources)
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("minWorkers: 1\nmaxWorkers: 1\nbatchsize: 4\n", "batchsize"),
        ("minWorkers: 1\nbatchSize: 4\n", "only together"),
        ("maxWorkers: 1\nbatchSize: 4\n", "only together"),
        ("- minWorkers\n", r"cyclegan\.yaml"),
        ("minWorkers: [1\n", r"cyclegan\.yaml"),
        ("# nothing but a comment\n", r"cyclegan\.yaml"),
    ],
    ids=["unknown key", "minWorkers alone", "maxWorkers alone", "a list", "no YAML", "empty"],
)
def test_yaml_that_torchserve_would_misread(text: str, reason: str, sources: Path) -> None:
    (sources / "cyclegan.yaml").write_text(text)
    with pytest.raises(ExportError, match=reason):
        _build(sources)
    assert not (sources / "cyclegan.mar").exists()
