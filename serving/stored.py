"""A model's files in the model store: NAME.mar is what the next start serves.

A rollout adds NAME@candidate.mar while a version has not replaced the default yet, and
NAME@previous.mar when it has. A start ignores both. Each change is whole or does not happen.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving import files
from serving.errors import ServingError


@dataclass(frozen=True)
class Stored:
    """The files of the model whose archive is ``default``. Methods raise ServingError."""

    default: Path

    @property
    def candidate(self) -> Path:
        return self.default.with_name(f"{self.default.stem}@candidate.mar")

    @property
    def previous(self) -> Path:
        return self.default.with_name(f"{self.default.stem}@previous.mar")

    def take(self, archive: Path) -> None:
        """Copy ``archive`` as the candidate."""
        with self._writing(), _copied(archive, self.candidate) as copy:
            copy.replace(self.candidate)
            _flush(self.candidate.parent)

    def promote(self, served: Path) -> None:
        """The candidate becomes the default; ``served``, the default's content, the previous."""
        with self._writing(), _copied(served, self.previous) as copy:
            if not self.candidate.exists():
                raise ServingError(f"{self.candidate} is gone: roll back, and roll it out again")
            self.candidate.replace(self.default)
            copy.replace(self.previous)
            _flush(self.default.parent)

    def restore(self) -> None:
        """The previous version becomes the default again."""
        with self._writing():
            self.previous.replace(self.default)
            _flush(self.default.parent)

    def drop_candidate(self) -> None:
        with contextlib.suppress(OSError):
            self.candidate.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ServingError(
                f"cannot write to {self.default.parent}: {error.strerror}; a rollout keeps its "
                "archives there"
            ) from error


def check_room(archive: Path, store: Path) -> None:
    """ServingError unless ``store`` has room for the copies of a rollout of ``archive``."""
    # The candidate, and then the previous version.
    need, free = 2 * archive.stat().st_size, shutil.disk_usage(store).free
    if free < need:
        raise ServingError(
            f"{store} has {free / 2**20:.0f} MiB free, and a rollout of {archive} needs "
            f"{need / 2**20:.0f}: free some"
        )


@contextlib.contextmanager
def _copied(source: Path, target: Path) -> Iterator[Path]:
    """A copy with the mode of ``source``, to be renamed to ``target``; else it is removed."""
    with (
        source.open("rb") as content,
        files.part(target, lambda copy: shutil.copyfileobj(content, copy, 2**20)) as copy,
    ):
        copy.chmod(os.fstat(content.fileno()).st_mode & 0o777)
        yield copy


def _flush(folder: Path) -> None:
    """Make renames in ``folder`` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
