"""The pictures of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# The formats that the server reads, and others that people consider pictures, so that nothing is
# skipped silently.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jxl", ".jp2"),
}


def below(folder: Path, exclude: Path | None = None) -> Iterator[Path]:
    """The files with SUFFIXES in and below ``folder``, in order; none below ``exclude``.

    Nothing that begins with a dot. Folders that cannot be listed follow: reading one reports it.
    """
    unreadable: list[OSError] = []
    # Path.resolve raises if links form a loop.
    excluded = os.path.realpath(exclude) if exclude is not None else None
    for parent, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(Path(parent) / name) != excluded
        )
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(parent) / name
    for error in unreadable:
        yield Path(error.filename)
