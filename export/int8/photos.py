"""A folder of photographs -> inputs of a network: half to calibrate on, half to judge on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from export.errors import ExportError
from export.weights import sha256_of
from handlers.errors import RequestError
from handlers.metadata import Spec
from handlers.network.engine import to_input
from handlers.pictures.decode import decode
from handlers.pictures.resample import resample

# In each half. NNCF's default is to calibrate on 300; more change little.
LEAST, MOST = 10, 300


@dataclass(frozen=True)
class File:
    """A file of the folder; ``label`` is the name of its sub-folder if that is a class."""

    path: Path
    sha256: str
    label: str | None


@dataclass(frozen=True)
class Photo:
    """A file and what a worker makes of it, ``(H, W, 3) uint8``."""

    file: File
    pixels: npt.NDArray[np.uint8]

    def input(self, spec: Spec) -> npt.NDArray[np.float32]:
        """``(1, 3, H, W) float32``."""
        batch: npt.NDArray[np.float32] = to_input(spec, torch.from_numpy(self.pixels[None])).numpy()
        return np.ascontiguousarray(batch)


@dataclass(frozen=True)
class Photos:
    """Two halves without a common photograph; ``unreadable`` are the files that are no pictures."""

    calibration: Sequence[Photo]
    judging: Sequence[Photo]
    unreadable: Sequence[Path]


def find(folder: Path, labels: Iterable[str]) -> list[File]:
    """The different files in ``folder`` and below, in an order that does not depend on names.

    Each class contributes evenly to every part of the list. A file that exists twice counts once.
    Raises ExportError if ``folder`` is not there, and for a sub-folder that is no class beside one
    that is.
    """
    if not folder.is_dir():
        raise ExportError(f"INT8={folder}: there is no such folder")
    classes = set(labels)
    names = {path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."}
    if names & classes and (unknown := sorted(names - classes)):
        raise ExportError(f"INT8={folder}: the network has no class {listed(unknown)}")
    files: dict[str, File] = {}
    for path in sorted(folder.rglob("[!.]*")):
        if path.is_file():
            first = path.relative_to(folder).parts[0]
            digest = sha256_of(path)
            files.setdefault(digest, File(path, digest, first if first in classes else None))
    seen: Counter[str | None] = Counter()
    ranked = []
    for file in sorted(files.values(), key=lambda file: file.sha256):
        ranked.append((seen[file.label], file.label or "", file))
        seen[file.label] += 1
    return [file for *_, file in sorted(ranked, key=lambda entry: entry[:2])]


def read(folder: Path, spec: Spec) -> Photos:
    """Decode and resize the photographs in ``folder`` as a worker does, and split them.

    The split depends on the files' content alone; both halves have every class. Raises ExportError
    if there are fewer than LEAST for a half.
    """
    unreadable: list[Path] = []
    ranks: Counter[str | None] = Counter()
    halves: tuple[list[Photo], list[Photo]] = ([], [])
    for photo in _read(find(folder, spec.labels), spec, unreadable):
        half = halves[ranks[photo.file.label] % 2]
        ranks[photo.file.label] += 1
        if len(half) < MOST:
            half.append(photo)
        if all(len(half) == MOST for half in halves):
            break
    if min(map(len, halves)) < LEAST:
        found = f"{sum(map(len, halves))} different photographs"
        failed = f"; {listed(unreadable)} cannot be read" if unreadable else ""
        raise ExportError(f"INT8={folder}: {2 * LEAST} are needed, it has {found}{failed}")
    return Photos(*halves, unreadable)


def _read(files: Iterable[File], spec: Spec, unreadable: list[Path]) -> Iterator[Photo]:
    for file in files:
        try:
            image = resample(spec, decode(file.path.read_bytes(), resize=spec.resize))
        except RequestError:
            unreadable.append(file.path)
        else:
            yield Photo(file, np.array(image))


def listed(items: Sequence[object]) -> str:
    """The first of ``items`` for a message, and how many more there are."""
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(map(str, items[:3])) + more
