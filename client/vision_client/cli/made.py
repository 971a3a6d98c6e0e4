"""Which pictures of a folder a command made, and how."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vision_client.cli.origin import Origin
from vision_client.errors import MALFORMED

NAME = ".vision.jsonl"


class Made:
    """The origins of the pictures in ``folder``, in a hidden file of JSON lines there.

    A line names a picture and its digest, so that one which was changed later has no origin. Raises
    OSError if the file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._origins: dict[tuple[str, str], Origin] = {}
        path = folder / NAME
        data = path.read_bytes() if path.exists() else b""
        self._is_cut = bool(data) and not data.endswith(b"\n")
        for line in data.splitlines():
            try:
                record = json.loads(line)
                key = str(record.pop("picture")), str(record.pop("sha256"))
            except MALFORMED:
                continue  # an interrupted command leaves the last line incomplete
            self._origins[key] = record

    def origin(self, path: Path) -> Origin | None:
        """None if no command is known to have made the picture at ``path``."""
        try:
            return self._origins.get(self._key(path, path.read_bytes()))
        except OSError:
            return None

    def add(self, path: Path, origin: Origin, data: bytes) -> None:
        """Call it before ``data`` is saved at ``path``: an interruption then forgets nothing."""
        picture, digest = self._key(path, data)
        line = json.dumps({"picture": picture, **origin, "sha256": digest})
        with (self._folder / NAME).open("a") as file:
            file.write("\n" * self._is_cut + line + "\n")
        self._is_cut = False

    def _key(self, path: Path, data: bytes) -> tuple[str, str]:
        return str(path.relative_to(self._folder)), hashlib.sha256(data).hexdigest()
