"""Writes files whole or not at all; reads and writes those with secrets, closed to other users."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from serving.errors import ServingError

PRIVATE = 0o600
PUBLIC = 0o644


def read_private(path: Path) -> bytes:
    """The content of ``path``. ServingError if it is unreadable or open to other users.

    The group may read a file of root's, if this process is not root: how Kubernetes mounts secrets.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            mode = found.st_mode & 0o777
            if mode & (0o037 if found.st_uid == 0 != os.getuid() else 0o077):
                raise ServingError(
                    f"{path} is open to other users (mode {mode:04o}): chmod 600 {path}"
                )
            return file.read()
    except OSError as error:
        raise ServingError(f"cannot read {path}: {error.strerror}") from error


def replace(files: Mapping[Path, tuple[bytes, int]]) -> None:
    """Write each file with its content and mode. Raises ServingError.

    All contents are on the disk before the first file is renamed. An existing file keeps its owner.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for path, (content, mode) in files.items():
            # mkstemp creates it as 0600, whatever the umask is.
            fd, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
            temporaries[path] = Path(name)
            with os.fdopen(fd, "wb") as file:
                if mode != PRIVATE:
                    os.fchmod(fd, mode)
                with contextlib.suppress(FileNotFoundError):
                    owner = path.stat()
                    if owner.st_uid != os.geteuid():
                        os.fchown(fd, owner.st_uid, owner.st_gid)
                file.write(content)
                file.flush()
                os.fsync(fd)
        for path in files:
            temporaries[path].replace(path)
            del temporaries[path]
    except OSError as error:
        raise ServingError(f"cannot write {path}: {error.strerror}") from error
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def part(target: Path, write: Callable[[BinaryIO], None]) -> Iterator[Path]:
    """A file beside ``target`` with what ``write`` writes, on the disk: to be renamed to it.

    It has the mode 0600, and is removed if it is not renamed. Raises OSError.
    """
    fd, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            write(file)
            file.flush()
            os.fsync(fd)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create ``folder`` if needed, and hold its lock against other processes.

    Waits for a process that holds it. Raises ServingError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ServingError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
