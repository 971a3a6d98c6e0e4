"""Classifications as JSON lines, CSV or tab-separated text; result files that can be resumed."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from vision_client.show import printable
from vision_client.tasks.classify import Classification

CSV_HEADER = ("picture", "rank", "class_id", "label", "probability")

Writer: TypeAlias = Callable[[str, Classification], str]


def as_json(name: str, answer: Classification) -> str:
    """One line: an object with the picture's name, the weights and the predictions."""
    record = {
        "picture": name,
        "weights": answer.weights,
        "predictions": [vars(prediction) for prediction in answer.predictions],
    }
    return json.dumps(record) + "\n"


def as_csv(name: str, answer: Classification) -> str:
    """One row per class with the columns of ``CSV_HEADER``."""
    return "".join(csv_line(row) for row in _rows(name, answer))


def as_tabs(name: str, answer: Classification) -> str:
    """The same rows separated by tabs, for cut and awk; names and labels are escaped."""
    rows = (map(printable, map(str, row)) for row in _rows(name, answer))
    return "".join("\t".join(row) + "\n" for row in rows)


def _rows(name: str, answer: Classification) -> list[tuple[Any, ...]]:
    return [
        (name, rank, prediction.class_id, prediction.label, prediction.probability)
        for rank, prediction in enumerate(answer.predictions, 1)
    ]


def csv_line(row: tuple[Any, ...]) -> str:
    buffer = io.StringIO()
    # With the line end "\r\n" the writer quotes values that contain "\r", as well as "\n".
    csv.writer(buffer, lineterminator="\r\n").writerow(row)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


class Results:
    """A file of classifications that a later run appends to.

    ``pictures`` are the names of this run's photographs, ``classes`` the number of classes that it
    asks for. ``done`` are the pictures whose results in the file are complete. An incomplete record
    at the end, which an interrupted run leaves, is cut off. Rows of CSV do not always show whether
    all of them are there; if that is unclear, they are cut off only if their picture is among
    ``pictures`` and so will be classified again. Raises ValueError if ``path`` contains anything
    else or is not a regular file, OSError if it cannot be opened; the file is then unchanged.
    """

    def __init__(
        self, path: Path, *, is_csv: bool, pictures: Collection[str], classes: int
    ) -> None:
        if path.exists() and not path.is_file():
            raise ValueError(
                f"{path} is not a regular file; to print results, leave out -o and give --json "
                "or --csv"
            )
        self._write: Writer = as_csv if is_csv else as_json
        start = _CSV_START if is_csv else _JSON_START
        self._file = path.open("a+b")
        try:
            self._file.seek(0)
            data = self._file.read(len(start))
            if data == start:
                data += self._file.read()
                length, self.done = (
                    _read_csv(data, pictures, classes) if is_csv else _read_json(data)
                )
            elif start.startswith(data):  # empty, or cut off within the first bytes
                length, self.done = 0, set()
            else:
                raise ValueError("not results")
            self._file.truncate(length)
            if is_csv and not length:
                self._file.write(_CSV_START)
            if length and not data[:length].endswith(b"\n"):  # editors may remove it
                self._file.write(b"\n")
        except ValueError as error:
            self._file.close()
            expected = "CSV" if is_csv else "JSON lines, which -o writes without --csv"
            raise ValueError(
                f"{path} does not contain this command's results as {expected}; it was not "
                "changed; choose another file"
            ) from error
        except BaseException:
            self._file.close()
            raise

    def add(self, name: str, answer: Classification) -> None:
        self._file.write(self._write(name, answer).encode(errors="surrogateescape"))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


_CSV_START = csv_line(CSV_HEADER).encode()
_JSON_START = b'{"picture":'


def _read_json(data: bytes) -> tuple[int, set[str]]:
    """The length in bytes of the complete records, and their pictures."""
    *lines, last = data.split(b"\n")
    names = {_picture(line) for line in lines}
    if not last:
        return len(data), names
    try:
        return len(data), names | {_picture(last)}
    except json.JSONDecodeError:
        if not _is_cut_json(last):
            raise
        return len(data) - len(last), names


def _picture(line: bytes) -> str:
    """The picture of the record in ``line``; ValueError if it is not a record."""
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("not a record: nested too deeply") from error
    match record:
        case {"picture": str(name), "weights": str() | None, "predictions": list()}:
            if len(record) == 3:
                return name
    raise ValueError("not a record")


def _is_cut_json(line: bytes) -> bool:
    """Whether ``line`` is the beginning of a record; checked up to the key "weights"."""
    before, after = b'{"picture": "', b'", "weights": '
    if before.startswith(line):
        return True
    name = re.match(re.escape(before) + rb'(?:[^"\\]|\\.)*', line)
    if name is None:
        return False
    rest = line[name.end() :]  # a lone backslash is the start of an escape in the name
    return rest == b"\\" or after.startswith(rest) or rest.startswith(after)


@dataclass(frozen=True)
class _Row:
    picture: str
    rank: int
    end: int  # the number of lines of the file up to the end of this row


def _read_csv(data: bytes, pictures: Collection[str], classes: int) -> tuple[int, set[str]]:
    """As ``_read_json``; see Results for ``pictures`` and ``classes``."""
    text = data.decode(errors="surrogateescape")
    lines = list(io.StringIO(text, newline="\n"))  # lines end at "\n" only
    reader = csv.reader(lines, strict=True)
    next(reader)  # the header
    rows: list[_Row] = []
    rest = ""
    try:
        for name, rank, class_id, _, probability in reader:
            _ = int(class_id), float(probability)
            rows.append(_Row(name, int(rank), reader.line_num))
    except (csv.Error, ValueError) as error:
        rest = "".join(lines[rows[-1].end if rows else 1 :])
        # A cut row has no line feed, or ends within quotes.
        is_cut = not rest.endswith("\n") or rest.count('"') % 2
        if reader.line_num < len(lines) or not is_cut:
            raise ValueError("not rows of CSV") from error
    if rows:
        last = _last_picture(rows)
        name = last[0].picture
        # In a row without a line feed the last number may be incomplete.
        is_open = len(last) < classes or not (rest or text.endswith("\n"))
        if rest.startswith(csv_line((name, "")).rstrip("\n")) or (is_open and name in pictures):
            del rows[-len(last) :]
    complete = rows[-1].end if rows else 1
    length = len("".join(lines[:complete]).encode(errors="surrogateescape"))
    return length, {row.picture for row in rows}


def _last_picture(rows: list[_Row]) -> list[_Row]:
    """The rows of the last picture, without those of the same picture earlier in the file."""
    start = len(rows) - 1
    while start and rows[start].rank != 1 and rows[start - 1].picture == rows[start].picture:
        start -= 1
    return rows[start:]
