"""Writes a bundle's tar.gz: whole or not at all, and the same bytes from the same files."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Never

from tqdm import tqdm

from deploy.portable import checksums
from serving.errors import ServingError
from serving.files import part

# 1 January 1980: the first day that a zip file can hold.
EPOCH = 315_532_800


class _Hashed(io.RawIOBase):
    """Reads a file, counts its bytes on ``bar`` and computes their SHA-256."""

    def __init__(self, file: BinaryIO, bar: tqdm[Never]) -> None:
        self._file, self._bar, self.sha256 = file, bar, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.sha256.update(block)
        self._bar.update(len(block))
        return block


def check_space(folder: Path, files: Mapping[str, Path]) -> None:
    """ServingError if ``folder`` has no room for an archive of ``files``."""
    need = sum(path.stat().st_size for path in files.values()) * 101 // 100
    free = shutil.disk_usage(folder).free
    if free < need:
        raise ServingError(
            f"{folder.resolve()} has {free / 2**30:.1f} GiB free, and the bundle takes "
            f"{need / 2**30:.1f}: free some"
        )


@contextlib.contextmanager
def packed(
    target: Path, top: str, files: Mapping[str, Path], made: Mapping[str, bytes],
    sums: Mapping[str, str],
) -> Iterator[Path]:  # fmt: skip
    """A temporary file beside ``target`` with the archive, which becomes ``target`` at the end.

    The archive has one folder, ``top``, with ``files``, the contents in ``made``, and SHA256SUMS.
    ``sums`` are the digests of ``files``. ServingError if a file has changed since, or cannot be
    read or written; ``target`` then stays as it was.
    """
    made = {**made, checksums.NAME: b""}
    own = {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
    del own[checksums.NAME]
    made[checksums.NAME] = checksums.as_text({**sums, **own}).encode()
    try:
        with part(target, lambda output: _write(output, top, files, made, sums)) as written:
            written.chmod(0o644)
            yield written
            written.replace(target)
    except OSError as error:
        raise ServingError(f"cannot write {target}: {error.strerror or error}") from error


def _write(
    output: BinaryIO, top: str, files: Mapping[str, Path], made: Mapping[str, bytes],
    sums: Mapping[str, str],
) -> None:  # fmt: skip
    size = sum(path.stat().st_size for path in files.values())
    names = sorted([*files, *made])
    folders = {str(parent) for name in names for parent in Path(name).parents} - {"."}
    # Weights and wheels do not compress; without compression this takes a tenth of the time.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=output, compresslevel=0, mtime=0) as packer,
        tarfile.open(fileobj=packer, mode="w", format=tarfile.GNU_FORMAT) as tar,
        tqdm(total=size, unit="B", unit_scale=True, desc="packing", disable=None) as bar,
    ):
        tar.addfile(_entry(top, tarfile.DIRTYPE, 0o755))
        for name in sorted({*names, *folders}):
            if name in folders:
                tar.addfile(_entry(f"{top}/{name}", tarfile.DIRTYPE, 0o755))
                continue
            entry = _entry(f"{top}/{name}", tarfile.REGTYPE, 0o755 if name == "run" else 0o644)
            if name in made:
                entry.size = len(made[name])
                tar.addfile(entry, io.BytesIO(made[name]))
                continue
            with files[name].open("rb") as file:
                entry.size = os.fstat(file.fileno()).st_size
                hashed = _Hashed(file, bar)
                tar.addfile(entry, hashed)
            if hashed.sha256.hexdigest() != sums[name]:
                raise ServingError(f"{files[name]} has changed while it was packed: run it again")


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, EPOCH
    return entry
