"""Classifications as data: lines of JSON, CSV or tabs, to a pipe or to a file that can go on."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from vision_client.answers import Classification
from vision_client.show import printable

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
    """The same without a header, between tabs, for cut and awk; names and labels are printable."""
    rows = (map(printable, map(str, row)) for row in _rows(name, answer))
    return "".join("\t".join(row) + "\n" for row in rows)


def _rows(name: str, answer: Classification) -> list[tuple[Any, ...]]:
    return [
        (name, rank, prediction.class_id, prediction.label, prediction.probability)
        for rank, prediction in enumerate(answer.predictions, 1)
    ]


def csv_line(row: tuple[Any, ...]) -> str:
    buffer = io.StringIO()
    # A line end of "\r\n" makes the writer quote values that contain "\r", as it does for "\n".
    csv.writer(buffer, lineterminator="\r\n").writerow(row)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


class Results:
    """A file of classifications that a later run adds to.

    ``pictures`` are the names of this run's photographs, ``classes`` is how many classes it asks
    for. ``done`` are the pictures whose results the file holds complete. An incomplete record at
    its end, which an interrupted run leaves, is cut off. Rows of CSV do not always show whether
    they are all there: where they may not be, they are cut off only if their picture is among
    ``pictures``, so that it is classified again. ValueError where ``path`` holds anything else
    or is not a regular file, OSError where it cannot be opened; its content then stays as it was.
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
            elif start.startswith(data):  # empty, or cut within the first bytes
                length, self.done = 0, set()
            else:
                raise ValueError("the first bytes are not those of results")
            self._file.truncate(length)
            if is_csv and not length:
                self._file.write(_CSV_START)
            if length and not data[:length].endswith(b"\n"):  # an editor may leave it out
                self._file.write(b"\n")
        except ValueError as error:
            self._file.close()
            wanted = "CSV" if is_csv else "JSON lines, which -o writes without --csv"
            raise ValueError(
                f"{path} holds something other than this command's results as {wanted}; it was not "
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
    """The length in bytes of the complete records, and the pictures in them."""
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
    """The picture of a record; ValueError where ``line`` is not one."""
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
    """Whether ``line`` is a record of ``as_json``, cut somewhere; checked as far as "weights"."""
    before, after = b'{"picture": "', b'", "weights": '
    if before.startswith(line):
        return True
    name = re.match(re.escape(before) + rb'(?:[^"\\]|\\.)*', line)
    if name is None:
        return False
    rest = line[name.end() :]  # a lone backslash begins an escape sequence of the name
    return rest == b"\\" or after.startswith(rest) or rest.startswith(after)


@dataclass(frozen=True)
class _Row:
    picture: str
    rank: int
    end: int  # the lines of the file up to the end of this row


def _read_csv(data: bytes, pictures: Collection[str], classes: int) -> tuple[int, set[str]]:
    """The same; see Results for ``pictures`` and ``classes``."""
    text = data.decode(errors="surrogateescape")
    lines = list(io.StringIO(text, newline="\n"))  # which ends lines at "\n" only
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
        # The end of the file ends the last row: before its line feed, or within quotes.
        is_cut = not rest.endswith("\n") or rest.count('"') % 2
        if reader.line_num < len(lines) or not is_cut:
            raise ValueError("not rows of CSV") from error
    if rows:
        last = _last_picture(rows)
        name = last[0].picture
        # The last number of a row without a line feed may be cut.
        is_open = len(last) < classes or not (rest or text.endswith("\n"))
        if rest.startswith(csv_line((name, "")).rstrip("\n")) or (is_open and name in pictures):
            del rows[-len(last) :]
    complete = rows[-1].end if rows else 1
    length = len("".join(lines[:complete]).encode(errors="surrogateescape"))
    return length, {row.picture for row in rows}


def _last_picture(rows: list[_Row]) -> list[_Row]:
    """The rows of the last picture, which may be in the file before."""
    start = len(rows) - 1
    while start and rows[start].rank != 1 and rows[start - 1].picture == rows[start].picture:
        start -= 1
    return rows[start:]
