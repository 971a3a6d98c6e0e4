"""Finding photographs, and the paths of their results."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vision_client.cli.photos import Clash, Photo, find, outputs
from vision_client.pictures import read_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "phone.heic", "sub/c.webp", "sub/d.tiff",
        ".thumbs/e.jpg", "translated/f.png", "translated/deep/g.png",
    ):  # fmt: skip
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder(folder: Path) -> None:
    names = [photo.name for photo in find(["in"])]
    assert names == [
        "in/a.PNG", "in/b.jpg", "in/phone.heic", "in/sub/c.webp", "in/sub/d.tiff",
        "in/translated/f.png", "in/translated/deep/g.png",
    ]  # fmt: skip


def test_results_of_an_earlier_run_are_excluded(folder: Path) -> None:
    names = [photo.name for photo in find(["in"], exclude=Path("in/translated"))]
    assert "in/sub/d.tiff" in names
    assert not [name for name in names if "translated" in name]


def test_named_files_are_taken_once_whatever_their_suffix(folder: Path) -> None:
    photos = find(["in/notes.txt", "-", "in/b.jpg", "in", "missing.jpg"])
    names = [photo.name for photo in photos]
    assert names[:3] == ["in/notes.txt", "-", "in/b.jpg"]
    assert names[-1] == "missing.jpg"
    assert names.count("in/b.jpg") == 1


def test_a_name_that_is_too_long_fails_when_it_is_read(folder: Path) -> None:
    name = "n" * 300
    assert find([name]) == [Photo(name, Path(name))]
    with pytest.raises(OSError, match="too long"):
        Photo(name, Path(name)).read()


def test_outputs_mirror_the_folders(folder: Path) -> None:
    photos = find(["in", "-"], exclude=Path("in/translated"))
    paths = [str(path) for path in outputs(photos, Path("out"), ".png").values()]
    assert paths == [
        "out/a.png", "out/b.png", "out/phone.png", "out/sub/c.png", "out/sub/d.png",
        "out/stdin.png",
    ]  # fmt: skip


def test_photographs_that_differ_in_their_suffix_keep_it() -> None:
    photos = [Photo(name, Path(name)) for name in ("a.jpg", "a.webp", "b.jpg")]
    paths = [str(path) for path in outputs(photos, Path("out"), ".png").values()]
    assert paths == ["out/a.jpg.png", "out/a.webp.png", "out/b.png"]


def test_addresses_that_differ_only_in_their_query_keep_it() -> None:
    host = "https://host/show.php"
    photos = find([f"{host}?id=1", f"{host}?id=2/3#x", "https://host/a.jpg?id=1"])
    paths = [str(path) for path in outputs(photos, Path("out"), ".png").values()]
    assert paths == ["out/show.php_id=1.png", "out/show.php_id=2_3.png", "out/a.png"]


@pytest.mark.parametrize("name", [".", "/", "http://[::1/a.jpg", "https:///", "https://./"])
def test_unusual_names_have_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vision_client.cli.photos.below", lambda *_: [])
    (photo,) = find([name])
    assert len(outputs([photo], Path("out"), ".png")) == 1
    with pytest.raises(OSError, match=r"no photographs in this folder|[Ii]nvalid|not an http"):
        photo.read()


def test_a_folder_that_cannot_be_read_is_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def denied(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path) == "in/sub":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    photos = {photo.name: photo for photo in find(["in"])}
    assert set(photos) > {"in/a.PNG", "in/sub", "in/translated/f.png"}
    for read in (photos["in/sub"].read, lambda: read_file("in/sub")):
        with pytest.raises(PermissionError):
            read()
    assert [photo.name for photo in find(["in/sub"])] == ["in/sub"]


def test_results_that_would_overwrite_photographs_are_refused(folder: Path) -> None:
    (folder / "link").symlink_to("in")
    for output in ("in", "in/../in", "link"):
        with pytest.raises(Clash, match=r"would replace the photograph in/b\.jpg"):
            outputs(find(["in"]), Path(output), ".jpg")
    with pytest.raises(Clash, match=r"would replace the photograph in/b\.jpg"):
        outputs(find(["in/b.jpg"]), Path("in"), ".jpg")
    assert outputs(find(["in/b.jpg", "missing.jpg"]), Path("in"), ".png")


def test_results_that_would_overwrite_each_other_are_refused(folder: Path) -> None:
    photos = find(["in/b.jpg", "in/sub/../b.jpg"])
    with pytest.raises(Clash, match=r"in/b\.jpg and in/sub/\.\./b\.jpg would both become"):
        outputs(photos, Path("out"), ".png")
