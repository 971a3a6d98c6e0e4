"""The photographs that the arguments name, and the paths of their results."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_client.cli.download import download, file_name, is_address, long_file_name
from vision_client.folders import SUFFIXES, below
from vision_client.pictures import read_file

STDIN = "-"


class Clash(ValueError):
    """A result that would overwrite another result or a photograph."""


@dataclass(frozen=True)
class Photo:
    """``name`` is the path as given or found, or the address, ``inside`` the path in the folder.

    A folder without photographs, or that the user may not read, is one whose content is an error.
    """

    name: str
    inside: Path

    @property
    def is_address(self) -> bool:
        return is_address(self.name)

    def read(self) -> bytes:
        """The content. OSError if it cannot be read or downloaded."""
        if self.name == STDIN:
            if sys.stdin is None:
                raise OSError(errno.EBADF, "standard input is closed")
            return sys.stdin.buffer.read()
        if self.is_address:
            return download(self.name)
        if os.path.isdir(self.name):  # noqa: PTH112 - see find
            os.scandir(self.name).close()  # raises if the folder cannot be read
            suffixes = ", ".join(sorted(SUFFIXES))
            raise OSError(f"no photographs in this folder: no file ends in {suffixes}")
        return read_file(self.name)


def find(
    arguments: Sequence[str],
    exclude: Path | None = None,
    is_result: Callable[[Path], bool] = lambda _: False,
) -> list[Photo]:
    """The files, addresses, and pictures in and below the folders, in order.

    Of the folders none below ``exclude``, and no picture that ``is_result``. A folder without
    pictures is itself in the list, and cannot be read.
    """
    photos: dict[str, Photo] = {}
    for argument in arguments:
        # Path.is_dir raises if a name is too long or may not be accessed.
        if argument != STDIN and os.path.isdir(argument):  # noqa: PTH112
            found = below(Path(argument), exclude)
            paths = [path for path in found if not is_result(path)]
            for path in paths:
                photos[str(path)] = Photo(str(path), _named(path.relative_to(argument)))
            if not paths:
                photos[argument] = Photo(argument, _named(Path(Path(argument).name)))
        elif is_address(argument):
            photos[argument] = Photo(argument, _named(Path(file_name(argument))))
        else:
            photos[argument] = Photo(argument, _named(Path(Path(argument).name)))
    return list(photos.values())


def _named(path: Path) -> Path:
    """``Path(".")``, of the current folder and of an address without a host, has no name."""
    return path if path.name else Path("photo")


def outputs(photos: Sequence[Photo], folder: Path, suffix: str) -> dict[Photo, Path]:
    """The path of each result: in ``folder`` as the photograph is in its own, with ``suffix``.

    Photographs that differ only in their suffix keep it: ``a.jpg.png`` and ``a.webp.png``. So do
    addresses with their query: ``show.php_id=1.png``. Raises
    Clash if two results would still have one path, or if a result would overwrite a photograph.
    """
    stems: dict[Path, int] = {}
    for photo in photos:
        stem = _stem(photo)
        stems[stem] = stems.get(stem, 0) + 1
    photo_by_path: dict[Path, Photo] = {}
    for photo in photos:
        stem = _stem(photo)
        base = stem if stems[stem] == 1 else _long(photo)
        path = folder / base.with_name(base.name + suffix)
        if path in photo_by_path:
            raise Clash(f"{photo_by_path[path].name} and {photo.name} would both become {path}")
        photo_by_path[path] = photo
    refuse_originals(photos, photo_by_path)
    return {photo: path for path, photo in photo_by_path.items()}


def refuse_originals(photos: Sequence[Photo], paths: Iterable[Path]) -> None:
    """Clash if a result at one of ``paths`` would overwrite a photograph."""
    originals = {_file(photo.name): photo for photo in photos if photo.name != STDIN}
    originals.pop(None, None)
    for path in paths:
        if original := originals.get(_file(path)):
            raise Clash(f"{path} would replace the photograph {original.name}; choose another -o")


def _file(path: str | Path) -> tuple[int, int] | None:
    """The identity of the file at ``path``; None if there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _long(photo: Photo) -> Path:
    return Path(long_file_name(photo.name)) if photo.is_address else photo.inside


def _stem(photo: Photo) -> Path:
    return Path("stdin") if photo.name == STDIN else photo.inside.with_suffix("")
