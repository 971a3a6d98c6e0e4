"""SHA256SUMS: the digest of every file of a bundle, in the format of ``sha256sum``.

``sha256sum --check SHA256SUMS`` reads it too, but does not notice files that were added.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAME = "SHA256SUMS"
# The only folder of an unpacked bundle that may change: what is installed, and the server's logs.
LOCAL = "local"


def digest(path: Path) -> str:
    """The SHA-256 of the file at ``path``, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(paths: Mapping[str, Path]) -> dict[str, str]:
    """The digest of each file, by the same names; as many at a time as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(paths, pool.map(digest, paths.values()), strict=True))


def as_text(sums: Mapping[str, str]) -> str:
    """The content of SHA256SUMS for ``sums``, digests by relative path."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def faults(bundle: Path) -> list[str]:
    """A sentence for each file of ``bundle`` that was changed, is missing or was added.

    A symbolic link is a change: a bundle has none.
    """
    try:
        lines = (bundle / NAME).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return [f"{NAME} cannot be read ({error})"]
    expected = {name: value for value, _, name in (line.partition("  ") for line in lines)}
    found = {str(path.relative_to(bundle)): path for path in _files(bundle)}
    regular = {
        name: path for name, path in found.items() if name in expected and not path.is_symlink()
    }
    try:
        actual = digests(regular)
    except OSError as error:
        return [f"{error.filename} cannot be read ({error.strerror})"]
    return [
        *(f"{name} is missing" for name in expected if name not in found),
        *(
            f"{name} was changed"
            for name in expected
            if name in found and actual.get(name) != expected[name]
        ),
        *(f"{name} was added" for name in sorted(set(found) - set(expected) - {NAME})),
    ]


def _files(bundle: Path) -> Iterator[Path]:
    """Every file and link below ``bundle``, except those of its folder LOCAL."""
    for folder, folders, files in os.walk(bundle):
        if Path(folder) == bundle and LOCAL in folders:
            folders.remove(LOCAL)
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in sorted([*files, *links]))
