"""What is in the archives, and that they are rebuilt exactly if something has changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from export import archive
from export.errors import ExportError
from export.networks import Network, Serving, find, registered
from serving.archives import VERSION

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

CYCLEGAN = registered()["cyclegan"]

Run = Callable[..., subprocess.CompletedProcess[str]]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _state(path: Path) -> tuple[int, int, str]:
    return path.stat().st_ino, path.stat().st_mtime_ns, _digest(path)


@pytest.mark.parametrize("name", registered())
def test_archive_holds_these_files_and_no_others(name: str, model_store: Path) -> None:
    network = registered()[name]
    expected = {
        "MAR-INF/MANIFEST.json": None,
        "inputs.json": None,
        f"{name}.pt": model_store / f"{name}.pt",
        f"{name}.json": model_store / f"{name}.json",
        "torchserve.py": ROOT / "handlers" / "torchserve.py",
        f"{name}.yaml": None,
        **{str(f.relative_to(ROOT)): f for f in archive.handler_files(network.task)},
    }
    with zipfile.ZipFile(model_store / f"{name}.mar") as mar:
        assert {entry for entry in mar.namelist() if not entry.endswith("/")} == set(expected)
        for entry, source in expected.items():
            if source:
                assert mar.read(entry) == source.read_bytes(), entry
        model = json.loads(mar.read("MAR-INF/MANIFEST.json"))["model"]
        inputs = json.loads(mar.read("inputs.json"))
        config = mar.read(f"{name}.yaml")
    assert model == {
        "modelName": name,
        "modelVersion": inputs["version"],
        "serializedFile": f"{name}.pt",
        "handler": "torchserve.py",
        "configFile": f"{name}.yaml",
    }
    assert inputs.pop("version") == archive.version_of(inputs)
    assert inputs["pt"] == _digest(model_store / f"{name}.pt")
    assert inputs["json"] == _digest(model_store / f"{name}.json")
    assert config.decode() == network.serving.to_yaml()
    assert inputs["yaml"] == hashlib.sha256(config).hexdigest()


def test_the_version_follows_from_the_content() -> None:
    inputs = {"pt": "a", "json": "b", "yaml": "c", "handlers": "d"}
    version = archive.version_of(inputs)
    assert VERSION.fullmatch(version)
    assert archive.version_of(dict(reversed(inputs.items()))) == version
    assert all(archive.version_of({**inputs, part: "x"}) != version for part in inputs)


def test_command_leaves_current_archives_alone(run: Run, store: Path) -> None:
    before = {name: _state(store / f"{name}.mar") for name in registered()}
    done = run("export.archive", "--model-store", store)
    assert done.returncode == 0
    assert done.stdout.count("unchanged") == len(registered())
    assert {name: _state(store / f"{name}.mar") for name in registered()} == before


def test_command_rebuilds_a_changed_archive(run: Run, store: Path) -> None:
    receipt, mar = store / "cyclegan.json", store / "cyclegan.mar"
    text = receipt.read_text().replace('"untrained"', '"renamed"')
    receipt.unlink()  # a hard link to what other tests read
    receipt.write_text(text)
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


def test_a_deleted_file_of_a_network_is_reported_with_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.pt").touch()
    receipt = {"network": "/no/such/mine.py", "spec": {"task": "classify"}}
    (tmp_path / "mine.json").write_text(json.dumps(receipt))
    done = run("export.archive", "--model-store", tmp_path)
    assert done.returncode == 1
    assert "error: mine: /no/such/mine.py: there is no such file" in done.stderr


@pytest.mark.parametrize("name", ["../mine", "/mine", "mine.mar", ""])
def test_names_of_models_are_no_paths(name: str, run: Run, tmp_path: Path) -> None:
    done = run("export.archive", name, "--model-store", tmp_path)
    assert done.returncode == 2
    assert f"no model can be called {name!r}" in done.stderr


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that goes into an archive; the .pt has a few bytes."""
    shutil.copytree(ROOT / "handlers", tmp_path / "handlers")
    _write_network(tmp_path, b"a network")
    monkeypatch.setattr(archive, "HANDLERS", tmp_path / "handlers")
    return tmp_path


def _write_network(sources: Path, pt: bytes) -> None:
    """``pt`` as cyclegan.pt, and the metadata that an export writes beside it."""
    (sources / "cyclegan.pt").write_bytes(pt)
    receipt = {"pt": {"sha256": hashlib.sha256(pt).hexdigest(), "bytes": len(pt)}}
    (sources / "cyclegan.json").write_text(json.dumps(receipt))


def _build(sources: Path, network: Network = CYCLEGAN) -> bool:
    return archive.build(network, sources / "cyclegan.pt", sources / "cyclegan.mar")


@pytest.mark.parametrize(
    "changed",
    [
        "cyclegan.json",
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
    (sources / "handlers" / archive._ENTRY).unlink()
    with pytest.raises(ExportError, match="torch-model-archiver failed"):
        _build(sources)
    assert _state(sources / "cyclegan.mar") == before
    assert not list(sources.glob(".archive-*"))


def test_folder_of_the_model_s_name_in_tmp_survives(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch-model-archiver deletes $TMPDIR/<model name>."""
    precious = tmp_path / "tmp" / "cyclegan" / "thesis.tex"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    assert os.environ["TMPDIR"] in str(precious)
    _build(sources)
    assert precious.read_text() == "years of work"


def test_serving_defaults_count(sources: Path) -> None:
    assert _build(sources)
    changed = dataclasses.replace(CYCLEGAN, serving=Serving(batch_size=2))
    assert _build(sources, changed)
    assert not _build(sources, changed)


def test_archive_carries_only_its_own_task(sources: Path) -> None:
    tasks = sources / "handlers" / "tasks"
    tasks.mkdir(exist_ok=True)
    for name in ("__init__", "translate", "classify", "other"):
        (tasks / f"{name}.py").touch()
    carried = {path.name for path in archive.handler_files("translate") if path.parent == tasks}
    assert carried == {"__init__.py", "translate.py"}


def _own_network(folder: Path) -> Path:
    """A user's network file with an export of it in the store ``folder``."""
    path = folder / "tiny_classifier.py"
    shutil.copy(ROOT / "tests" / "networks" / path.name, path)
    pt = folder / "tiny_classifier.pt"
    pt.write_bytes(b"a network")
    spec = {"task": "classify"}
    receipt = {"pt": {"sha256": _digest(pt)}, "network": str(path), "spec": spec}
    pt.with_suffix(".json").write_text(json.dumps(receipt))
    return path


def test_command_archives_every_network_of_the_store(run: Run, tmp_path: Path) -> None:
    _own_network(tmp_path)
    _write_network(tmp_path, b"a network")  # its .json names no network
    done = run("export.archive", "--model-store", tmp_path)
    assert done.returncode == 1
    assert "cyclegan.json does not name its network: run `make export`" in done.stderr
    assert "tiny_classifier.mar: archived" in done.stdout


@pytest.mark.parametrize("fault", ["missing", "renamed"])
def test_command_without_the_user_s_file(fault: str, run: Run, tmp_path: Path) -> None:
    path = _own_network(tmp_path)
    if fault == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text().replace('name="tiny_classifier"', 'name="other"'))
    done = run("export.archive", "--model-store", tmp_path)
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.mar"))


def test_serving_defaults_in_torchserve_s_names() -> None:
    """TorchServe ignores unknown keys, and minWorkers without maxWorkers."""
    assert yaml.safe_load(find("resnet101").serving.to_yaml()) == {
        "minWorkers": 1,
        "maxWorkers": 1,
        "deviceType": "gpu",
        "batchSize": 8,
        "maxBatchDelay": 1,
        "responseTimeout": 120,
        "startupTimeout": 300,
        "maxRetryTimeoutInSec": 300,
    }
    assert yaml.safe_load(CYCLEGAN.serving.to_yaml()) == {
        "minWorkers": 1,
        "maxWorkers": 1,
        "deviceType": "gpu",
        "batchSize": 4,
        "maxBatchDelay": 1,
        "responseTimeout": 600,
        "startupTimeout": 300,
        "maxRetryTimeoutInSec": 300,
        "jobQueueSize": 8,
        "handler": {"cpu_batch_pixels": 65536},
    }
    own = Serving(precision="float32", limits={"pixels": 1_000_000}, ray={"num_cpus": 2})
    section = {"precision": "float32", "limits": {"pixels": 1_000_000}}
    assert (
        yaml.safe_load(own.to_yaml()).items()
        >= {"handler": section, "ray": {"num_cpus": 2}}.items()
    )
