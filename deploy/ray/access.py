"""Who may call: the API keys of a file, which is read again when it changes."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from serving.errors import ServingError
from serving.keys import Client, read_keys
from serving.refusals import Refused, too_many_at_once

logger = logging.getLogger("ray.serve")

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
# Seconds between two looks at the file.
_LOOK_S = 1.0


class Access:
    """The clients of the keys file at ``path``; None lets everybody in.

    Raises ServingError if the file cannot be read. If that happens later, when it has changed, the
    keys that were read before stay valid.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._present: Counter[str] = Counter()
        self._looked = self._changed = 0.0
        self._clients: dict[str, Client] = {}
        if path:
            self._read(path)

    @contextlib.contextmanager
    def admitted(self, authorization: str) -> Iterator[str | None]:
        """Count a request with this header until the block ends. Raises Refused if it may not.

        The value is the client's name, or None without keys.
        """
        if self._path is None:
            yield None
            return
        client = self._client(self._path, authorization)
        if client.concurrent is not None and self._present[client.name] >= client.concurrent:
            raise too_many_at_once(client.concurrent)
        self._present[client.name] += 1
        try:
            yield client.name
        finally:
            self._present[client.name] -= 1

    def _client(self, path: Path, authorization: str) -> Client:
        if time.monotonic() - self._looked > _LOOK_S:
            self._looked = time.monotonic()
            with contextlib.suppress(OSError):
                if path.stat().st_mtime != self._changed:
                    self._reread(path)
        match = _BEARER.fullmatch(authorization)
        if match is None:
            raise Refused(401, "Unauthorized", "send your key as `authorization: Bearer KEY`")
        client = self._clients.get(match[1])
        if client is None or not client.is_valid:
            raise Refused(401, "Unauthorized", "the key is not valid")
        return client

    def _reread(self, path: Path) -> None:
        try:
            self._read(path)
        except ServingError:
            logger.exception("the keys of before still count")

    def _read(self, path: Path) -> None:
        self._changed = path.stat().st_mtime if path.exists() else 0.0
        self._clients = {client.key: client for client in read_keys(path)}
