"""Archives with a changed file in them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path


def copy_changed(archive: Path, copy: Path, file: str, change: Callable[[bytes], bytes]) -> None:
    """Copy ``archive``, whose ``file`` is replaced by the result of ``change``.

    AssertionError if it has no such file.
    """
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(copy, "w") as target:
        assert file in source.namelist()
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, change(data) if name == file else data)
