"""Brings an archive to the node that runs it, and unpacks it there, once for all its replicas."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy.ray.options import ArchiveOptions
from serving.errors import ServingError

# Of this user on this node, with a folder for each archive, which is named by its sha256.
FOLDER = Path(tempfile.gettempdir()) / f"vision-archives-{os.getuid()}"
TIMEOUT_S = 60
# Archives that no replica uses any more, for replicas that come back.
KEPT = 4
_CHUNK = 2**20
_MAR, _CONTENT, _PART, _GONE = "archive.mar", "content", ".part", ".gone-"
# What zipfile raises for a damaged, foreign or encrypted file.
_DAMAGED = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, RuntimeError, OSError)


class ArchiveError(ServingError):
    """An archive cannot be fetched or unpacked, or is not the one that was asked for."""


@dataclass(frozen=True)
class Unpacked:
    """``path`` is the folder with the content of an archive; others use it too, so only read it.

    It stays until ``release``, or until this process ends.
    """

    path: Path
    lock: int

    def release(self) -> None:
        os.close(self.lock)


def fetch(archive: ArchiveOptions, folder: Path = FOLDER) -> tuple[Path, str]:
    """The file of ``archive`` and its sha256; a URL is downloaded into ``folder``, once.

    Raises ArchiveError if it cannot be read or has another sha256.
    """
    if not archive.is_remote:
        return _local(archive)
    assert archive.sha256 is not None
    place, lock = _lock(folder, archive.sha256, fcntl.LOCK_SH)
    try:
        return _downloaded(archive, place), archive.sha256
    finally:
        os.close(lock)


def unpack(archive: ArchiveOptions, folder: Path = FOLDER) -> Unpacked:
    """The content of ``archive``, which has a sha256, in ``folder``.

    The archive itself is only read if its content is not there. The content appears when it is
    complete, and is removed some time after its last use. Raises ArchiveError as ``fetch`` does,
    and if the file is not an archive or there is no room.
    """
    assert archive.sha256 is not None
    while True:
        place, lock = _lock(folder, archive.sha256, fcntl.LOCK_SH)
        content = place / _CONTENT
        if content.is_dir():
            os.utime(place)
            _remove_unused(folder)
            return Unpacked(content, lock)
        os.close(lock)
        place, lock = _lock(folder, archive.sha256, fcntl.LOCK_EX)
        try:
            if not content.is_dir():
                remote = archive.is_remote
                _fill(content, _downloaded(archive, place) if remote else _local(archive)[0])
        finally:
            os.close(lock)


def _lock(folder: Path, name: str, kind: int) -> tuple[Path, int]:
    """The folder of an archive in ``folder``, and the descriptor that locks it.

    LOCK_EX is for filling and removing it, LOCK_SH for using its content.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.lstat()
    # What is in it is executed.
    if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.getuid() or owner.st_mode & 0o022:
        raise ArchiveError(f"{folder} is not a folder that only this user can write to: remove it")
    place = folder / name
    while True:
        with contextlib.suppress(FileNotFoundError):  # removed in between
            place.mkdir(exist_ok=True)
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, kind)
            if place.is_dir() and os.path.samestat(os.fstat(lock), place.stat()):
                return place, lock
            os.close(lock)


def _local(archive: ArchiveOptions) -> tuple[Path, str]:
    path = Path(archive.source)
    if not path.is_file():
        raise ArchiveError(
            f"{path} does not exist on this node: every node needs the archive at the same path "
            "(a shared volume, the image), or serve it from a URL with its sha256"
        )
    return path, _digest(path, archive)


def _downloaded(archive: ArchiveOptions, place: Path) -> Path:
    path = place / _MAR
    if path.is_file():
        return path
    descriptor, part = tempfile.mkstemp(prefix=_PART, dir=place)
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            httpx.stream("GET", archive.source, timeout=TIMEOUT_S, follow_redirects=True) as reply,
        ):
            reply.raise_for_status()
            for chunk in reply.iter_bytes(_CHUNK):
                file.write(chunk)
        _digest(Path(part), archive)
        Path(part).replace(path)
    except (httpx.HTTPError, OSError) as error:
        raise ArchiveError(f"{archive.source} cannot be downloaded: {error}") from error
    finally:
        Path(part).unlink(missing_ok=True)
    return path


def _fill(content: Path, mar: Path) -> None:
    for left in content.parent.glob(f"{_PART}*"):  # by processes that were killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    part = content.with_name(_PART)
    try:
        with zipfile.ZipFile(mar) as file:
            file.extractall(part)  # it never leaves the folder, whatever the members' names
        part.rename(content)
    except _DAMAGED as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ArchiveError(f"{mar} cannot be unpacked: {error}") from error


def _remove_unused(folder: Path) -> None:
    """Remove what killed processes left, and all but the last KEPT archives that nobody uses."""
    for gone in folder.glob(f"{_GONE}*"):
        shutil.rmtree(gone, ignore_errors=True)
    unused = 0
    places = [(place.stat().st_mtime, place) for place in folder.iterdir() if place.is_dir()]
    for _, place in sorted(places, reverse=True):
        with contextlib.suppress(OSError):  # another process removed it
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                unused += 1
                if unused > KEPT:
                    gone = place.rename(folder / f"{_GONE}{os.getpid()}-{place.name}")
                    shutil.rmtree(gone, ignore_errors=True)
            except BlockingIOError:  # in use
                pass
            finally:
                os.close(lock)


def _digest(path: Path, archive: ArchiveOptions) -> str:
    """The sha256 of ``path``. Raises ArchiveError if it is not the one that ``archive`` has."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if archive.sha256 not in (None, found):
        raise ArchiveError(f"{archive.source} has sha256 {found}, not {archive.sha256}")
    return found
