"""Classifications as data: lines of JSON, CSV or tabs, to a pipe or to a file that can go on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from vision_client.answers import Classification

CSV_HEADER = ("picture", "rank", "class_id", "label", "probability")

Writer: TypeAlias = Callable[[str, Classification], str]


def as_json(name: str, answer: Classification) -> str:
    """One line: an object of the picture's name, its weights and its predictions."""
    record = {
        "picture": name,
        "weights": answer.weights,
        "predictions": [vars(prediction) for prediction in answer.predictions],
    }
    return json.dumps(record) + "\n"


def as_csv(name: str, answer: Classification) -> str:
    """One row per class, as ``CSV_HEADER`` names the columns."""
    return "".join(csv_line(row) for row in _rows(name, answer))


def as_tabs(name: str, answer: Classification) -> str:
    """The same without a header, between tabs, for cut and awk."""
    return "".join("\t".join(map(str, row)) + "\n" for row in _rows(name, answer))


def _rows(name: str, answer: Classification) -> list[tuple[Any, ...]]:
    return [
        (name, rank, prediction.class_id, prediction.label, prediction.probability)
        for rank, prediction in enumerate(answer.predictions, 1)
    ]


def csv_line(row: tuple[Any, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(row)
    return buffer.getvalue()


class Results:
    """A file of classifications that a later run adds to.

    ``done`` are the pictures that it holds whole. What an interrupted run left of a last one is cut
    off. ValueError where the file is something else, OSError where it cannot be used.
    """

    def __init__(self, path: Path, *, is_csv: bool) -> None:
        self._write: Writer = as_csv if is_csv else as_json
        self._file = path.open("a+", encoding="utf-8", errors="surrogateescape", newline="")
        try:
            self._file.seek(0)
            whole, self.done = (_csv_so_far if is_csv else _json_so_far)(self._file.read(), path)
            self._file.seek(0)
            self._file.truncate(len(whole.encode(errors="surrogateescape")))
            if is_csv and not whole:
                self._file.write(csv_line(CSV_HEADER))
        except BaseException:
            self._file.close()
            raise

    def add(self, name: str, answer: Classification) -> None:
        self._file.write(self._write(name, answer))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _json_so_far(text: str, path: Path) -> tuple[str, set[str]]:
    """The whole lines of ``text``, and the pictures in them."""
    whole = text[: text.rfind("\n") + 1]
    try:
        return whole, {str(json.loads(line)["picture"]) for line in whole.splitlines()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds something else: lines of JSON are added to it") from error


def _csv_so_far(text: str, path: Path) -> tuple[str, set[str]]:
    """The same; a last picture with fewer classes than the first is not whole."""
    lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
    if not lines:
        return "", set()
    if lines[0] != csv_line(CSV_HEADER):
        raise ValueError(f"{path} holds something else: rows of CSV are added to it")
    names = [row[0] for row in csv.reader(lines[1:])]
    if names and names.count(names[-1]) < names.count(names[0]):
        partial = names.count(names[-1])
        lines, names = lines[:-partial], names[:-partial]
    return "".join(lines), set(names)
