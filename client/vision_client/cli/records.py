"""Classifications as data: lines of JSON, CSV or tabs, to a pipe or to a file that can go on."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
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

    ``done`` are the pictures whose results the file holds complete. An incomplete record at its
    end, which an interrupted run leaves, is cut off. ValueError where ``path`` holds anything else
    or is not a regular file, OSError where it cannot be opened; its content then stays as it was.
    """

    def __init__(self, path: Path, *, is_csv: bool) -> None:
        if path.exists() and not path.is_file():
            raise ValueError(
                f"{path} is not a regular file; to print results, leave out -o and give --json "
                "or --csv"
            )
        self._write: Writer = as_csv if is_csv else as_json
        start, read = (_CSV_START, _read_csv) if is_csv else (_JSON_START, _read_json)
        self._file = path.open("a+b")
        try:
            self._file.seek(0)
            data = self._file.read(len(start))
            if data == start:
                length, self.done = read(data + self._file.read())
            elif start.startswith(data):  # empty, or cut within the first bytes
                length, self.done = 0, set()
            else:
                raise ValueError("the first bytes are not those of results")
            self._file.truncate(length)
            if is_csv and not length:
                self._file.write(_CSV_START)
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
    """The length in bytes of the complete lines, and the pictures in them."""
    *lines, cut = data.split(b"\n")
    names = {_picture(line) for line in lines}
    if cut and not _is_cut_json(cut):
        raise ValueError("the last line is not the start of a record")
    return len(data) - len(cut), names


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


def _read_csv(data: bytes) -> tuple[int, set[str]]:
    """The same; a last picture with fewer classes than the first is not complete."""
    text = data.decode(errors="surrogateescape")
    lines = list(io.StringIO(text, newline="\n"))  # which ends lines at "\n" only
    if not lines[-1].endswith("\n"):
        lines.pop()
    reader = csv.reader(lines, strict=True)
    next(reader)  # the header
    rows: list[tuple[str, int]] = []  # the picture, and the lines up to the row's end
    try:
        for name, rank, class_id, _, probability in reader:
            _ = int(rank), int(class_id), float(probability)
            rows.append((name, reader.line_num))
    except csv.Error as error:  # a cut within quotes takes all that follows
        if reader.line_num < len(lines):
            raise ValueError("not rows of CSV") from error
    names = [name for name, _ in rows]
    if names and names.count(names[-1]) < names.count(names[0]):
        del rows[-names.count(names[-1]) :]
    complete = rows[-1][1] if rows else 1
    length = len("".join(lines[:complete]).encode(errors="surrogateescape"))
    return length, {name for name, _ in rows}
