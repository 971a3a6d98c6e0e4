"""An archive reaches a node whole or not at all, and is unpacked there once."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.ray import archives
from deploy.ray.archives import ArchiveError, fetch, unpack
from deploy.ray.options import ArchiveOptions

Make = Callable[..., ArchiveOptions]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archives"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``make("a")``: an archive whose only file is ``name`` with the text ``a``."""

    def write(text: str) -> ArchiveOptions:
        mar = tmp_path / f"{text}.mar"
        with zipfile.ZipFile(mar, "w") as file:
            file.writestr("name", text)
        return ArchiveOptions(source=str(mar), sha256=digest(mar))

    return write


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server that has the files of the test's folder."""

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = tmp_path / self.path[1:]
            self.send_response(200 if path.is_file() else 404)
            self.end_headers()
            if path.is_file():
                self.wfile.write(path.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_replicas_of_a_node_share_one_copy(make: Make, folder: Path) -> None:
    archive = make("a")
    first, second = unpack(archive, folder), unpack(archive, folder)
    assert first.path == second.path
    assert (first.path / "name").read_text() == "a"
    assert [place.name for place in folder.iterdir()] == [archive.sha256]
    for each in (first, second):
        each.release()


def test_a_replica_starts_again_when_the_file_has_changed_or_is_gone(
    make: Make, folder: Path
) -> None:
    archive = make("a")
    unpack(archive, folder).release()
    Path(archive.source).unlink()
    again = unpack(archive, folder)
    assert (again.path / "name").read_text() == "a"
    again.release()


def test_a_copy_in_use_stays_and_old_ones_go(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "KEPT", 1)
    used = unpack(make("used"), folder)
    for age, name in enumerate("cba"):
        each = unpack(make(name), folder)
        each.release()
        os.utime(each.path.parent, (age, age))
    (folder / ".gone-1-left").mkdir()
    last = unpack(make("last"), folder)
    kept = {(place / "content" / "name").read_text() for place in folder.iterdir()}
    assert kept == {"used", "a", "last"}
    for each in (used, last):
        each.release()


def test_what_a_killed_replica_left_is_overwritten(make: Make, folder: Path) -> None:
    archive = make("a")
    part = folder / str(archive.sha256) / ".part"
    part.mkdir(parents=True)
    folder.chmod(0o700)
    (part / "other").touch()
    whole = unpack(archive, folder)
    assert [path.name for path in whole.path.iterdir()] == ["name"]
    assert not part.exists()
    whole.release()


def test_a_download_is_kept_once_it_is_the_right_file(
    make: Make, folder: Path, server: str, tmp_path: Path
) -> None:
    local = make("a")
    remote = ArchiveOptions(source=f"{server}/a.mar", sha256=local.sha256)
    path, found = fetch(remote, folder)
    assert (path.read_bytes(), found) == (Path(local.source).read_bytes(), local.sha256)
    Path(local.source).unlink()
    assert fetch(remote, folder)[0] == path
    unpacked = unpack(remote, folder)
    assert (unpacked.path / "name").read_text() == "a"
    unpacked.release()


@pytest.mark.parametrize("remote", [False, True])
def test_another_digest_is_refused(make: Make, folder: Path, server: str, remote: bool) -> None:
    local = make("a")
    source = f"{server}/a.mar" if remote else local.source
    wrong = ArchiveOptions(source=source, sha256="0" * 64)
    for bring in (fetch, unpack):
        with pytest.raises(ArchiveError, match=f"{source} has sha256 {local.sha256}, not 000000"):
            bring(wrong, folder)
    assert [path.name for path in folder.glob("*/*")] == []


def test_what_cannot_be_had_is_one_sentence(folder: Path, server: str, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mar"
    damaged.write_bytes(b"PK\3\4" + b"\0" * 40)
    for source, sha256, message in (
        (tmp_path / "none.mar", "0" * 64, "does not exist on this node: every node needs"),
        (f"{server}/none.mar", "0" * 64, "cannot be downloaded: .*404"),
        ("http://127.0.0.1:9/a.mar", "0" * 64, "cannot be downloaded: .*refused"),
        (damaged, digest(damaged), "damaged.mar cannot be unpacked: "),
    ):
        with pytest.raises(ArchiveError, match=message):
            unpack(ArchiveOptions(source=str(source), sha256=sha256), folder)
    assert [path.name for path in folder.glob("*/*")] == []


def test_a_folder_of_somebody_else_is_not_used(make: Make, folder: Path) -> None:
    """Its files would be executed."""
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ArchiveError, match="is not a folder that only this user can write to"):
        unpack(make("a"), folder)
    folder.rmdir()
    folder.symlink_to(folder.parent)
    with pytest.raises(ArchiveError, match="is not a folder that only this user can write to"):
        unpack(make("a"), folder)
