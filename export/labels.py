"""Class names from a user's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from export.errors import ExportError


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names in order: JSON as ``in_order`` takes it, or text with one a line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            labels = in_order(json.loads(text))
        else:
            labels = tuple(line.strip() for line in text.splitlines() if line.strip())
    except (OSError, ValueError, TypeError) as error:
        raise ExportError(f"cannot read labels from {path}: {error}") from error
    if not labels:
        raise ExportError(f"{path} holds no labels")
    return labels


def in_order(names: object) -> tuple[str, ...]:
    """Class names from a sequence, a map from index to name, or ImageFolder's ``class_to_idx``.

    TorchServe's own ``index_to_name.json``, whose values are ``[wordnet id, name]``, is such a map.
    ValueError or TypeError if it is something else, or if the indices are not 0, 1, 2, ...
    """
    if isinstance(names, Mapping):
        if all(type(index) is int for index in names.values()):
            pairs = [(index, name) for name, index in names.items()]
        else:
            pairs = [(int(index), name) for index, name in names.items()]
        pairs.sort(key=lambda pair: pair[0])
        if [index for index, _ in pairs] != list(range(len(pairs))):
            raise ValueError(f"the indices are not 0 to {len(pairs) - 1}")
        names = [name for _, name in pairs]
    if not isinstance(names, (list, tuple)):
        raise TypeError("neither a list nor a map")
    return tuple(_text(name[-1] if isinstance(name, list) and name else name) for name in names)


def _text(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not a string")
    return name
