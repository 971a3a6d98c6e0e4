"""Which pictures of a folder a command made, of which photograph and how."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from vision_client.cli.origin import Origin
from vision_client.cli.photos import Clash, Photo
from vision_client.errors import MALFORMED

NAME = ".vision.jsonl"


class Made:
    """The origins of the pictures in ``folder``, in a hidden file of JSON lines there.

    A line names a picture, its digest, so that one which was changed later has no origin, and its
    photograph: by its digest too, or its address. Raises OSError if the file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder)  # Path.resolve raises if links form a loop
        self._path = folder / NAME
        self._origins: dict[tuple[str, str], Origin] = {}
        self._photographs: dict[tuple[str, str], str] = {}
        self._pictures: set[str] = set()
        data = self._path.read_bytes() if self._path.exists() else b""
        self._is_cut = bool(data) and not data.endswith(b"\n")
        for line in data.splitlines():
            try:
                record = json.loads(line)
                key = str(record.pop("picture")), str(record.pop("sha256"))
                # An older version did not keep the photograph.
                self._photographs[key] = record.pop("photograph", "")
            except MALFORMED:
                continue  # an interrupted command leaves the last line incomplete
            self._origins[key] = record
            self._pictures.add(key[0])

    def origin(self, path: Path) -> Origin | None:
        """None if no command is known to have made the picture at ``path``."""
        key = self._read(path)
        return None if key is None else self._origins.get(key)

    def require_same(self, path: Path, photo: Photo) -> None:
        """Clash if the picture at ``path`` is known to be of another photograph than ``photo``.

        OSError if ``photo`` cannot be read.
        """
        key = self._read(path)
        photograph = "" if key is None else self._photographs.get(key, "")
        if photograph and photograph != _photograph(photo, None):
            raise Clash(
                f"{path} was made of another photograph than {photo.name}, or before that was "
                "changed; choose another -o, or replace it with --force"
            )

    def add(self, path: Path, origin: Origin, data: bytes, photo: Photo, photograph: bytes) -> None:
        """``data`` is the picture, ``photograph`` the content of ``photo``.

        Call it before ``data`` is saved at ``path``: an interruption then forgets nothing.
        """
        picture, digest = self._key(path, data)
        record = {"picture": picture, **origin, "sha256": digest}
        line = json.dumps({**record, "photograph": _photograph(photo, photograph)})
        with self._path.open("a") as file:
            file.write("\n" * self._is_cut + line + "\n")
        self._is_cut = False

    def _read(self, path: Path) -> tuple[str, str] | None:
        """The key of the picture at ``path``; None if it is not listed or cannot be read."""
        if self._name(path) not in self._pictures:
            return None
        try:
            return self._key(path, path.read_bytes())
        except OSError:
            return None

    def _key(self, path: Path, data: bytes) -> tuple[str, str]:
        return self._name(path), hashlib.sha256(data).hexdigest()

    def _name(self, path: Path) -> str:
        """The path in the folder."""
        return os.path.relpath(Path(os.path.realpath(path.parent)) / path.name, self._folder)


def _photograph(photo: Photo, data: bytes | None) -> str:
    """The address, or the digest of the content ``data``, which is read if it is None."""
    if photo.is_address:
        return photo.name
    return hashlib.sha256(photo.read() if data is None else data).hexdigest()
