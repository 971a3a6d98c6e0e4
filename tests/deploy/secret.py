"""A volume of a Kubernetes Secret, without Kubernetes."""

from __future__ import annotations

import os
from pathlib import Path


class Secret:
    """The folder ``path`` as the kubelet writes it: the files are links through ``..data``, and a
    change swaps this one link. ``files`` are the contents; ``group`` may read them.
    """

    def __init__(self, path: Path, files: dict[str, str], group: int) -> None:
        path.mkdir()
        path.chmod(0o755)
        self._path, self._group, self._version = path, group, 0
        self.replace(files)
        for name in files:
            (path / name).symlink_to(f"..data/{name}")

    def replace(self, files: dict[str, str]) -> None:
        """Write all files anew, and remove the old ones."""
        old = self._path / f"..{self._version}"
        self._version += 1
        new = self._path / f"..{self._version}"
        new.mkdir()
        new.chmod(0o755)
        for name, text in files.items():
            file = new / name
            file.write_text(text)
            file.chmod(0o440)
            os.chown(file, -1, self._group)
        (self._path / "..data_tmp").symlink_to(new.name)
        (self._path / "..data_tmp").replace(self._path / "..data")
        if old.is_dir():
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
