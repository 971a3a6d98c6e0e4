"""Brings an archive to the node that runs it, and unpacks it there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import httpx

from deploy.ray.options import ArchiveOptions

TIMEOUT_S = 60
_CHUNK = 2**20


class ArchiveError(Exception):
    """An archive cannot be fetched, or is not the one that was asked for."""


def fetch(archive: ArchiveOptions, folder: Path) -> Path:
    """The file of ``archive``: its path, or the download in ``folder``.

    A download is kept under its sha256 for the other replicas of the node, and appears there only
    when it is complete. Raises ArchiveError if it cannot be read or has another sha256.
    """
    if not archive.is_remote:
        path = Path(archive.source)
        if not path.is_file():
            raise ArchiveError(
                f"{path} does not exist on this node: every node needs the archive at the same "
                "path (a shared volume, the image), or serve it from a URL with its sha256"
            )
        if archive.sha256:
            _check(path, archive)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{archive.sha256}.mar"
    if not path.is_file():
        _download(archive, path)
    return path


def unpack(mar: Path, folder: Path) -> Path:
    """The folder with the content of ``mar``, inside ``folder``; the caller removes it.

    Raises ArchiveError if ``mar`` is not an archive or there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = Path(tempfile.mkdtemp(prefix="archive-", dir=folder))
    try:
        with zipfile.ZipFile(mar) as file:
            file.extractall(target)  # it never leaves the folder, whatever the members' names
    except (zipfile.BadZipFile, OSError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise ArchiveError(f"{mar} cannot be unpacked: {error}") from error
    return target


def _download(archive: ArchiveOptions, path: Path) -> None:
    descriptor, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            httpx.stream("GET", archive.source, timeout=TIMEOUT_S, follow_redirects=True) as reply,
        ):
            reply.raise_for_status()
            for chunk in reply.iter_bytes(_CHUNK):
                file.write(chunk)
        _check(Path(part), archive)
        Path(part).replace(path)
    except (httpx.HTTPError, OSError) as error:
        raise ArchiveError(f"{archive.source} cannot be downloaded: {error}") from error
    finally:
        Path(part).unlink(missing_ok=True)


def _check(path: Path, archive: ArchiveOptions) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise ArchiveError(f"{archive.source} has sha256 {found}, not {archive.sha256}")
