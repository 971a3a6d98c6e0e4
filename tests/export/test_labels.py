"""Class names from all common file formats, exactly one per class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.errors import ExportError
from export.labels import read_labels

NAMES = [f"{kind} of cat" for kind in ("a", "b", "c", "d", "e", "f", "g")] + ["é", "h", "i", "j"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", NAMES),
        ("map.json", {str(i): name for i, name in enumerate(NAMES)}),
        ("unordered.json", {str(i): NAMES[i] for i in reversed(range(len(NAMES)))}),
        ("index_to_name.json", {str(i): [f"n{i:08}", name] for i, name in enumerate(NAMES)}),
        ("class_to_idx.json", {name: i for i, name in reversed([*enumerate(NAMES)])}),
        ("lines.txt", "\n".join(NAMES) + "\n"),
        ("windows.txt", "\r\n".join(NAMES) + "\r\n"),
        ("with a byte order mark.txt", "\ufeff" + "\n".join(NAMES)),
        ("with a byte order mark.json", "\ufeff" + json.dumps(NAMES)),
    ],
)
def test_formats(name: str, content: object, tmp_path: Path) -> None:
    path = tmp_path / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(text.encode())
    assert read_labels(path) == tuple(NAMES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("hole.json", '{"0": "a", "2": "c"}'),
        ("from one.json", '{"1": "a", "2": "b"}'),
        ("twice.json", '{"0": "a", "00": "b"}'),
        ("names to one index.json", '{"a": 0, "b": 0}'),
        ("numbers.json", "[0, 1]"),
        ("map to numbers.json", '{"0": 1, "1": 2}'),
        ("list of numbers.json", "[[0, 1], [1, 2]]"),
        ("empty names.json", '{"0": []}'),
        ("null.json", "null"),
        ("text.json", '"ab"'),
        ("broken.json", '["a", "b"'),
        ("latin1.txt", "caf\xe9"),
        ("empty.txt", "\n \n"),
        ("empty.json", "[]"),
    ],
)
def test_no_labels(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ExportError, match=str(path)):
        read_labels(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"labels\.json"):
        read_labels(tmp_path / "labels.json")
