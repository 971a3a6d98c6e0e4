"""The file of API keys: one client per line, ``name: key`` and options.

The options are ``concurrent=4`` and ``expires=2027-01-31``, in any order.
``#`` begins a comment. Messages quote no text of an invalid line, because a key may be where the
name belongs.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from serving.errors import ServingError
from serving.files import PRIVATE, locked, read_private, replace

# A name alone is never `-`, which stands for "no client" in access logs.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# The characters of bearer tokens (RFC 6750).
KEY = re.compile(r"[A-Za-z0-9._~+/=-]{20,256}")
RANDOM_BYTES = 32  # 43 characters


@dataclass(frozen=True)
class Client:
    """A client. At most ``concurrent`` of its requests wait or are with TorchServe (None: any).

    Its key is not valid from ``expires`` on (None: it does not expire).
    """

    name: str
    key: str = field(repr=False)
    concurrent: int | None = None
    expires: datetime | None = None

    @property
    def is_valid(self) -> bool:
        """Whether the key has not expired."""
        return self.expires is None or datetime.now(UTC) < self.expires


def check_name(name: str) -> str:
    """Returns ``name``. Raises ServingError if it is not a valid name of a client."""
    if not NAME.fullmatch(name):
        raise ServingError(
            f"{name!r} is not a client's name: 1 to 64 letters, digits, `.`, `_` or `-`, the first "
            "a letter or digit"
        )
    return name


def read_keys(path: Path) -> tuple[Client, ...]:
    """The clients in the file. ServingError if it is open to other users or a line is invalid."""
    return tuple(_clients(_read(path), path).values())


def add_key(path: Path, name: str, *, rotate: bool = False) -> str:
    """Write a new random key for ``name`` to the file, created if needed; returns the key.

    With ``rotate`` it replaces the client's key; options and comment in its line stay. Raises
    ServingError if the client is in the file without ``rotate``, or is not with it, or if the new
    key would have expired already. Concurrent calls are safe.
    """
    check_name(name)
    path = path.resolve()  # a link stays a link
    key = secrets.token_urlsafe(RANDOM_BYTES)
    with locked(path.parent):
        text = _read(path) if path.exists() else ""
        lines = text.splitlines()
        clients = _clients(text, path)
        number = next((n for n, client in clients.items() if client.name == name), None)
        if number is None:
            if rotate:
                raise ServingError(f"{path} has no client {name}: leave out --replace to add it")
            lines.append(f"{name}: {key}")
        elif rotate:
            if not clients[number].is_valid:
                raise ServingError(
                    f"the key of {name} has expired: change `expires=` in {path}, line {number}, "
                    "first"
                )
            head, _, rest = lines[number - 1].partition(":")
            lines[number - 1] = f"{head}:{rest.replace(clients[number].key, key, 1)}"
        else:
            raise ServingError(f"{path} has a client {name}: --replace gives it another key")
        replace({path: ("".join(f"{line}\n" for line in lines).encode(), PRIVATE)})
    return key


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):  # read_private says which
        if not path.exists():
            raise ServingError(f"{path} does not exist: `make key NAME=...` creates it")
    try:
        return read_private(path).decode()
    except UnicodeDecodeError as error:
        raise ServingError(f"{path} is not UTF-8 text") from error


def _clients(text: str, path: Path) -> dict[int, Client]:
    """The clients by line number, counted from 1."""
    clients: dict[int, Client] = {}
    names: dict[str, int] = {}
    keys: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line := line.partition("#")[0].strip():
            try:
                client = _parse(line)
                if client.name in names:
                    raise ServingError(f"the name is that of line {names[client.name]}")
                if client.key in keys:
                    raise ServingError(f"the key is that of line {keys[client.key]}")
            except ServingError as error:
                raise ServingError(f"{path}, line {number}: {error}") from None
            names[client.name] = keys[client.key] = number
            clients[number] = client
    return clients


def _parse(line: str) -> Client:
    name, _, rest = line.partition(":")
    key, *options = rest.split() or [""]
    if not NAME.fullmatch(name.strip()) or not key:
        raise ServingError("`name: key` is needed; a name has letters, digits, `.`, `_`, `-`")
    if not KEY.fullmatch(key):
        raise ServingError("a key has 20 to 256 letters, digits or `._~+/=-` (`make key`)")
    values = dict(option.partition("=")[::2] for option in options)
    concurrent, expires = values.pop("concurrent", None), values.pop("expires", None)
    if values or len(options) != len({option.partition("=")[0] for option in options}):
        raise ServingError(
            "after the key, `concurrent=N` (1 to 999999) and `expires=YYYY-MM-DD` are all that may "
            "follow, once each"
        )
    if concurrent is not None and not re.fullmatch(r"[1-9]\d{0,5}", concurrent, re.ASCII):
        raise ServingError("`concurrent=N` needs a number from 1 to 999999")
    limit = None if concurrent is None else int(concurrent)
    return Client(name.strip(), key, limit, None if expires is None else _end_of(expires))


def _end_of(day: str) -> datetime:
    """The end of a day in UTC."""
    try:
        begin = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
        return begin + timedelta(days=1)
    except (ValueError, OverflowError):
        raise ServingError("`expires=` needs the last day of the key, as 2027-01-31") from None
