"""Class names from a user's file."""

from __future__ import annotations

import json
from pathlib import Path

from export.errors import ExportError


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names in order: a JSON list, a JSON map from index to name, or text with one a line.

    TorchServe's own ``index_to_name.json``, whose values are ``[wordnet id, name]``, is such a map.
    """
    labels = _read(path)
    if not labels:
        raise ExportError(f"{path} holds no labels")
    return labels


def _read(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        labels = json.loads(text)
        if isinstance(labels, dict):
            if {int(index) for index in labels} != set(range(len(labels))):
                raise ExportError(f"{path}: the indices are not 0 to {len(labels) - 1}")
            labels = [labels[index] for index in sorted(labels, key=int)]
        if not isinstance(labels, list):
            raise TypeError("neither a list nor a map")
        return tuple(_text(name[-1] if isinstance(name, list) else name) for name in labels)
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise ExportError(f"cannot read labels from {path}: {error}") from error


def _text(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not a string")
    return name
