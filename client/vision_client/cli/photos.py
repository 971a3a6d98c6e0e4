"""Which pictures the arguments mean, and what their results are called."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_client.pictures import read_file

# What is taken from a folder: what the server reads, and what people take for pictures, so that
# nothing is left out in silence. A file that is named itself may be called anything.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jxl", ".jp2"),
}
STDIN = "-"


class Clash(ValueError):
    """A result that would replace another or one of the photographs."""


@dataclass(frozen=True)
class Photo:
    """``name`` as the user gave it, or found in a folder they gave; ``inside`` that folder."""

    name: str
    inside: Path

    def read(self) -> bytes:
        """OSError where there is nothing to read."""
        if self.name == STDIN:
            if sys.stdin is None:
                raise OSError(errno.EBADF, "standard input is closed")
            return sys.stdin.buffer.read()
        return read_file(self.name)


def find(arguments: Sequence[str], but: Path | None = None) -> list[Photo]:
    """Files as named, and pictures in folders and below, in order; none that is below ``but``."""
    found: dict[str, Photo] = {}
    for argument in arguments:
        # Unlike Path.is_dir, it does not raise, of a name that is too long or may not be looked at.
        if argument != STDIN and os.path.isdir(argument):  # noqa: PTH112
            for path in _below(Path(argument), but):
                found[str(path)] = Photo(str(path), path.relative_to(argument))
        else:
            found[argument] = Photo(argument, Path(Path(argument).name))
    return list(found.values())


def _below(folder: Path, but: Path | None) -> Iterator[Path]:
    # Unlike Path.resolve, it does not raise where links lead in a circle.
    excluded = os.path.realpath(but) if but is not None else None
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(Path(where) / name) != excluded
        )
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(where) / name


def outputs(photos: Sequence[Photo], folder: Path, suffix: str) -> dict[Photo, Path]:
    """Where each result goes: below ``folder`` as the photograph below its own, with ``suffix``.

    Photographs that differ in their suffix only keep it: ``a.jpg.png`` and ``a.webp.png``. Clash
    where that does not tell them apart, or where a result would replace a photograph.
    """
    originals = {_file(photo.name): photo for photo in photos if photo.name != STDIN}
    originals.pop(None, None)
    stems: dict[Path, int] = {}
    for photo in photos:
        stem = _stem(photo)
        stems[stem] = stems.get(stem, 0) + 1
    named: dict[Path, Photo] = {}
    for photo in photos:
        stem = _stem(photo)
        base = stem if stems[stem] == 1 else photo.inside
        path = folder / base.with_name(base.name + suffix)
        if path in named:
            raise Clash(f"{named[path].name} and {photo.name} would both become {path}")
        if original := originals.get(_file(path)):
            raise Clash(
                f"{path} would replace the photograph {original.name}; choose another folder"
            )
        named[path] = photo
    return {photo: path for path, photo in named.items()}


def _file(path: str | Path) -> tuple[int, int] | None:
    """Which file ``path`` leads to, whatever its name; None where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _stem(photo: Photo) -> Path:
    return Path("stdin") if photo.name == STDIN else photo.inside.with_suffix("")
