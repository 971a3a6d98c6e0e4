"""An archive answers bytes in this process, without a server."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from export.archive import HANDLERS, handler_files
from handlers import bundle
from handlers.errors import BadImage, InvalidOption, LoadError, RequestError, TooLarge
from handlers.request import Answer, Message
from handlers.service import Service
from handlers.settings import VARIABLES, Settings
from handlers.unpacked import MANIFEST, Unpacked, find_device, read
from tests.handlers.support import Decoders, WriteArtefact

YAML = "batchSize: 2\nresponseTimeout: 60\nhandler: {precision: float32, limits: {pixels: 20000}}\n"
NAMES = {"serializedFile": "tiny.pt", "configFile": "tiny.yaml"}


def write(mar: Path, pt: bytes, **changes: Any) -> Path:
    """The archive of a tiny network, as torch-model-archiver writes it."""
    with zipfile.ZipFile(mar, "w") as file:
        model = {"modelName": "tiny", **NAMES, **changes}
        file.writestr(MANIFEST, json.dumps({"model": model}))
        file.writestr(NAMES["serializedFile"], pt)
        file.writestr(NAMES["configFile"], YAML)
        for path in handler_files("translate"):
            file.write(path, path.relative_to(HANDLERS.parent))
    return mar


@pytest.fixture
def pt(artefact: WriteArtefact) -> Path:
    return artefact()


@pytest.fixture
def mar(pt: Path, tmp_path: Path) -> Path:
    return write(tmp_path / "tiny.mar", pt.read_bytes())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's temporary folders are."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def model(mar: Path) -> Iterator[bundle.Model]:
    with bundle.load(mar, "cpu") as model:
        yield model


def test_the_bytes_are_those_of_the_service(model: bundle.Model, pt: Path, chelsea: bytes) -> None:
    with contextlib.closing(Service(pt, settings=Settings(precision="float32"))) as service:
        [expected] = service.answer([Message({"x-size": "64", "accept": "image/webp"}, chelsea)])
    assert isinstance(expected, Answer)
    assert model.answer(chelsea, size=64, format="webp") == expected
    assert model.answer(memoryview(chelsea), size="64", format=b"webp") == expected


def test_each_picture_has_its_own_outcome_and_batches_are_those_of_the_archive(
    model: bundle.Model, chelsea: bytes, heavy: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "handlers")
    pictures = (picture for picture in (chelsea, b"junk", heavy, chelsea, chelsea))
    first, junk, large, *rest = model.answer_all(pictures, size=64)
    assert (type(junk), type(large)) == (BadImage, TooLarge)
    assert isinstance(first, Answer)
    assert rest == [first, first]
    batches = [record.getMessage()[:10] for record in caplog.records]
    assert batches == ["batch of 2", "batch of 2", "batch of 1"]
    assert model.answer_all([]) == []
    with pytest.raises(BadImage, match="not a picture"):
        model.answer(b"junk")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 65}, "size must be from 64 to 1024 in multiples of 4, not 65"),
        ({"siz": 64}, "there is no option siz: use size"),
        ({"top_k": 3}, "there is no option top_k: there are size, quality, format"),
        ({"body": 1}, "there is no option body"),
        ({"format": "gif"}, "format must be one of png, jpeg, webp"),
    ],
)
def test_a_wrong_option_is_an_error_of_all_pictures(
    model: bundle.Model, options: Mapping[str, object], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        model.answer_all(iter([]), **options)


def test_a_path_is_not_a_picture(model: bundle.Model) -> None:
    wrong: Any = "photo.jpg"
    with pytest.raises(TypeError, match=r"bytes of its file, not str: Path\(...\).read_bytes"):
        model.answer(wrong)


def test_threads_share_a_model(model: bundle.Model, chelsea: bytes) -> None:
    answers: list[Answer | RequestError] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(model.answer_all([chelsea] * 3)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 12
    assert set(answers) == {model.answer(chelsea)}


def test_nothing_remains(mar: Path, temporary: Path, decoders: Decoders, chelsea: bytes) -> None:
    threads = torch.get_num_threads()
    with bundle.load(mar, "cpu") as model:
        # A killed process removes nothing.
        assert list(temporary.iterdir()) == []
        assert len(decoders()) == min(2, threads)
        assert model.answer(chelsea, size=64).content_type == "image/png"
        assert model.describe()["name"] == "cyclegan"
    assert decoders() == []
    assert torch.get_num_threads() == threads
    model.close()
    for use in (model.describe, lambda: model.answer(chelsea)):
        with pytest.raises(ValueError, match="closed: load the archive again"):
            use()


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "flipped", "no manifest", "outside"])
def test_a_faulty_archive_is_one_sentence(
    mar: Path, pt: Path, temporary: Path, decoders: Decoders, damage: str
) -> None:
    content = bytearray(mar.read_bytes())
    if damage == "missing":
        mar.unlink()
    elif damage == "text":
        mar.write_text("no archive\n")
    elif damage == "cut":
        mar.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        with zipfile.ZipFile(mar) as file:
            start = file.getinfo(NAMES["serializedFile"]).header_offset
        content[start + 1000] ^= 0xFF
        mar.write_bytes(content)
    elif damage == "no manifest":
        mar.write_bytes(pt.read_bytes())
    else:
        write(mar, pt.read_bytes(), serializedFile="../tiny.pt")
    with pytest.raises(LoadError) as caught:
        bundle.load(mar, "cpu")
    message = str(caught.value)
    assert message.count("\n") == 0
    assert str(mar) in message
    assert "run `make" in message
    assert list(temporary.iterdir()) == []
    assert decoders() == []


def test_a_full_disk_names_the_folder(
    mar: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(temporary))

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    with pytest.raises(LoadError, match=r"No space left on device: '.*TMPDIR chooses"):
        bundle.load(mar, "cpu")


def test_arguments_come_before_the_environment_and_the_yaml(pt: Path) -> None:
    archive = Unpacked(pt, {"batchSize": 2, "handler": {"precision": "bfloat16"}})
    variable = {VARIABLES["precision"]: "float32"}
    for environment, expected in ((None, "bfloat16"), (variable, "float32")):
        with contextlib.closing(archive.service(environment=environment)) as service:
            assert service.engine.precision == expected
    with pytest.raises(LoadError, match=r"the settings of the model: precision must be one of"):
        archive.service(environment=variable, precision="fp8")
    with pytest.raises(LoadError, match="cannot run in OpenVINO"):
        archive.service(environment=variable, engine="openvino")


@pytest.mark.parametrize(
    ("manifest", "yaml", "message"),
    [
        (None, YAML, "No such file"),
        ("[]", YAML, "does not name the network's file"),
        ('{"model": {"serializedFile": "a/b.pt"}}', YAML, "files in other folders"),
        (json.dumps({"model": NAMES}), "- 1", "tiny.yaml is not a map"),
        (json.dumps({"model": NAMES}), "{", "is not an unpacked archive"),
    ],
)
def test_a_folder_that_is_no_archive(
    tmp_path: Path, manifest: str | None, yaml: str, message: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml)
    if manifest is not None:
        (tmp_path / MANIFEST).parent.mkdir()
        (tmp_path / MANIFEST).write_text(manifest)
    with pytest.raises(LoadError, match=message):
        read(tmp_path)


def test_an_unpacked_archive_is_read_as_torchserve_reads_it(mar: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(mar).extractall(tmp_path / "folder")
    archive = read(tmp_path / "folder")
    assert (archive.batch_size, archive.response_timeout) == (2, 60)
    assert archive.artefact == tmp_path / "folder" / "tiny.pt"
    defaults = Unpacked(archive.artefact, {})
    assert (defaults.batch_size, defaults.response_timeout) == (1, 120)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {find_device(name).type for name in ("auto", "cpu")} == {"cpu"}
    with pytest.raises(LoadError, match=r"cannot use a GPU here: check the NVIDIA driver"):
        find_device("gpu")
    with pytest.raises(LoadError, match="auto, gpu or cpu, not 'cuda'"):
        find_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [str(find_device(name)) for name in ("auto", "gpu", "cpu")] == ["cuda:0"] * 2 + ["cpu"]


def test_an_archive_runs_by_its_own_code_in_a_script(
    mar: Path, chelsea: bytes, tmp_path: Path
) -> None:
    """Without this checkout, by a relative path, and without a guard of the main module."""
    (tmp_path / "picture.png").write_bytes(chelsea)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from handlers import bundle\n"
        "assert bundle.__file__.startswith(sys.argv[1])\n"
        "model = bundle.load(sys.argv[1], 'cpu')\n"
        "print(model.answer(Path(sys.argv[2]).read_bytes(), size=64).content_type)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", script.name, mar.name, "picture.png"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "image/png\n"), run.stderr
