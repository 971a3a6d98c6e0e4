"""The archives that TorchServe may load: links in a private folder to files that are held open.

A file that is replaced in the model store, as by `make export`, stays what it was for this server:
TorchServe loads the same archive again when it is restarted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from serving.archives import Archive
from serving.errors import ServingError


def file_name(archive: Archive) -> str:
    """The name of ``archive`` in that folder."""
    return f"{archive.model}-{archive.version}.mar"


class Held:
    """The archives in ``folder``, which is created; close it at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptors: dict[str, int] = {}
        folder.mkdir()

    def add(self, archive: Archive) -> None:
        """Hold ``archive``; ServingError if it cannot be read."""
        try:
            descriptor = os.open(archive.path, os.O_RDONLY)
        except OSError as error:
            raise ServingError(f"cannot read {archive.path}: {error.strerror}") from error
        self.remove(archive)
        name = file_name(archive)
        self._descriptors[name] = descriptor
        held = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        # macOS has no such path: there the archive must stay where it is.
        (self._folder / name).symlink_to(held if held.exists() else archive.path.resolve())

    def path(self, archive: Archive) -> Path:
        """A file with the content of ``archive``, wherever the archive itself is now."""
        return self._folder / file_name(archive)

    def remove(self, archive: Archive) -> None:
        """Hold ``archive`` no longer, if it was held."""
        name = file_name(archive)
        (self._folder / name).unlink(missing_ok=True)
        if (descriptor := self._descriptors.pop(name, None)) is not None:
            os.close(descriptor)

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors.clear()


def hold(folder: Path, archives: Collection[Archive]) -> Held:
    """Hold ``archives`` in the new ``folder``."""
    held = Held(folder)
    for archive in archives:
        held.add(archive)
    return held
