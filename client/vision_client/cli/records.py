"""Classifications as JSON lines, CSV or tab-separated text; result files that can be resumed."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from vision_client.cli.origin import Origin
from vision_client.files import whole
from vision_client.show import printable
from vision_client.tasks.classify import Classification

if sys.platform != "win32":
    import fcntl

CSV_HEADER = (
    *("picture", "rank", "class_id", "label", "probability"),
    *("model", "weights", "top_k"),
)
_OLD_CSV_HEADER = CSV_HEADER[:5]  # of files of an older version

Writer: TypeAlias = Callable[[str, Origin, Classification], str]


def as_json(name: str, origin: Origin, answer: Classification) -> str:
    """One line: an object with the picture's name, the origin and the predictions."""
    predictions = [vars(prediction) for prediction in answer.predictions]
    return json.dumps({"picture": name, **origin, "predictions": predictions}) + "\n"


def as_csv(name: str, origin: Origin, answer: Classification) -> str:
    """One row per class with the columns of ``CSV_HEADER``."""
    last = tuple(origin[key] for key in ("model", "weights", "top_k"))
    return "".join(csv_line((*row, *last)) for row in _rows(name, answer))


def as_tabs(name: str, _: Origin, answer: Classification) -> str:
    """Rows without the origin separated by tabs, for cut and awk; names and labels are escaped."""
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


@dataclass(frozen=True)
class _Record:
    """The answer of one picture as it is in the file; ``origin`` is None if it may be cut off."""

    picture: str
    origin: Origin | None
    raw: bytes


class Results:
    """A file of classifications that a later run continues; a context manager that closes it.

    ``pictures`` are the names of this run's photographs. ``earlier`` has the origin of each
    picture's last answer in the file. Answers are appended; closing the file removes the earlier
    ones of ``pictures``, so that each has one and an interruption loses none. An incomplete record
    at the end, which an interrupted run leaves, is cut off. Rows of CSV do not always show whether
    all of them are there; if that is unclear, they are not in ``earlier``. If another program, as
    an editor, replaces the file, the answers go to the new one. Raises ValueError if ``path``
    contains anything else or is not a regular file, OSError if it cannot be opened; the file is
    then unchanged.
    """

    def __init__(self, path: Path, *, is_csv: bool, pictures: Collection[str]) -> None:
        if path.exists() and not path.is_file():
            raise ValueError(
                f"{path} is not a regular file; to print results, leave out -o and give --json "
                "or --csv"
            )
        self._path = path.resolve()  # a link stays one when the file is replaced
        self._write: Writer = as_csv if is_csv else as_json
        self._start = _CSV_START if is_csv else b""
        self._read = _read_csv if is_csv else _read_json
        self._pictures = set(pictures)
        self._added: Counter[str] = Counter()
        try:
            records = self._open()
        except ValueError as error:
            expected = "CSV" if is_csv else "JSON lines"
            raise ValueError(
                f"{path} does not contain this command's results as {expected}; it was not "
                "changed; choose another file"
            ) from error
        last = {record.picture: record.origin for record in records}
        self.earlier = {name: origin for name, origin in last.items() if origin is not None}

    def _open(self, *, retry: bool = True) -> list[_Record]:
        """Open the file to add to its records. ValueError if it contains anything else."""
        self._file = self._path.open("a+b")
        try:
            self._lock()
            if retry and not self._is_current():  # another command replaced it before the lock
                self._file.close()
                return self._open(retry=False)
            data = self._content(_CSV_FIRST if self._start else _JSON_FIRST)
            records = self._read(data)
            length = sum(len(record.raw) for record in records)
            if not records:
                self._file.truncate(0)
                self._file.write(self._start)
            elif data.startswith(_OLD_CSV_START):
                self._replace(records)
                self._file.close()
                self._open()
                return records
            else:
                self._file.truncate(len(self._start) + length)
                if not records[-1].raw.endswith(b"\n"):  # editors may remove it
                    self._file.write(b"\n")
        except BaseException:
            self._file.close()
            raise
        self._count = Counter(record.picture for record in records)
        return records

    def _lock(self) -> None:
        """OSError if another command has the file: it may replace it, and lose what is added."""
        if sys.platform == "win32":
            return  # it has no such locks
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = "another command is writing to it"
            raise BlockingIOError(error.errno, message, str(self._path)) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def _is_current(self) -> bool:
        """Whether the open file still is the one at the path."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _content(self, first: bytes) -> bytes:
        """The file; empty if it was cut within ``first``. ValueError if it starts with others."""
        self._file.seek(0)
        data = self._file.read(len(first))
        if data == first:
            return data + self._file.read()
        if first.startswith(data):
            return b""
        raise ValueError("not results")

    def add(self, name: str, origin: Origin, answer: Classification) -> None:
        """OSError, ESTALE if another program replaced the file by one that cannot be continued."""
        if self._file.closed or not self._is_current():
            self._file.close()
            try:
                self._open()
            except (ValueError, OSError) as error:
                message = f"{self._path}, which another program replaced, cannot be continued"
                raise OSError(errno.ESTALE, f"{message}: {error}") from error
        self._file.write(self._write(name, origin, answer).encode(errors="surrogateescape"))
        self._file.flush()
        self._count[name] += 1
        self._added[name] += 1

    def _replace(self, records: Iterable[_Record]) -> None:
        """Write the file anew with ``records``; it is never half-written."""
        with whole(self._path) as file:
            file.write(self._start)
            file.writelines(record.raw for record in records)
            shutil.copymode(self._path, file.name)

    def close(self) -> None:
        """Remove all answers but the last of each picture of this run.

        OSError if that fails, or if another program removed answers of this run.
        """
        try:
            if not self._file.closed:
                self._file.flush()
            is_current = not self._file.closed and self._is_current()
            has_old = is_current and any(self._count[name] > 1 for name in self._pictures)
            records = self._read(self._path.read_bytes()) if self._added or has_old else []
            lost = self._added - Counter(record.picture for record in records)
            if lost:
                message = f"another program removed {lost.total()} answers of this run"
                raise OSError(errno.EIO, f"{message}; repeat the command")
            if has_old:
                last = {record.picture: i for i, record in enumerate(records)}
                self._replace(
                    record
                    for i, record in enumerate(records)
                    if last[record.picture] == i or record.picture not in self._pictures
                )
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        except ValueError as error:
            message = "another program wrote to it during the run; it is left as it is"
            raise OSError(errno.EIO, message, str(self._path)) from error
        finally:
            with suppress(OSError):  # of a flush that has failed above
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # of some network file systems
_CSV_START = csv_line(CSV_HEADER).encode()
_OLD_CSV_START = csv_line(_OLD_CSV_HEADER).encode()
_CSV_FIRST = _OLD_CSV_START.removesuffix(b"\n")
_JSON_FIRST = b'{"picture":'


def _read_json(data: bytes) -> list[_Record]:
    """The complete records. ValueError if ``data`` is not records, but for the end of the last."""
    *lines, last = data.split(b"\n")
    records = [_record(line + b"\n") for line in lines]
    if last:
        try:
            records.append(_record(last))
        except json.JSONDecodeError:
            if not _is_cut_json(last):
                raise
    return records


def _record(line: bytes) -> _Record:
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("not a record: nested too deeply") from error
    match record:
        case {"picture": str(name), "weights": str() | None, "predictions": list()}:
            origin = {k: v for k, v in record.items() if k not in ("picture", "predictions")}
            match origin:
                case {"model": str(), "top_k": int()} if len(origin) == 3:
                    return _Record(name, origin, line)
            if len(origin) == 1:  # of an older version
                return _Record(name, {}, line)
    raise ValueError("not a record")


def _is_cut_json(line: bytes) -> bool:
    """Whether ``line`` is the beginning of a record; checked up to the key after the name."""
    before = b'{"picture": "'
    if before.startswith(line):
        return True
    name = re.match(re.escape(before) + rb'(?:[^"\\]|\\.)*', line)
    if name is None:
        return False
    rest = line[name.end() :]  # a lone backslash is the start of an escape in the name
    nexts = (b'", "model": ', b'", "weights": ')  # the second in an older version
    return rest == b"\\" or any(after.startswith(rest) or rest.startswith(after) for after in nexts)


@dataclass(frozen=True)
class _Row:
    picture: str
    rank: int
    origin: Origin
    raw: str


def _read_csv(data: bytes) -> list[_Record]:
    """As ``_read_json``. Rows of an older version get empty columns for the origin."""
    if _CSV_START.startswith(data):  # empty, or cut within the header
        return []
    if not data.startswith((_CSV_START, _OLD_CSV_START)):
        raise ValueError("other columns")
    text = data.decode(errors="surrogateescape")
    lines = list(io.StringIO(text, newline="\n"))  # lines end at "\n" only
    reader = csv.reader(lines, strict=True)
    columns = len(next(reader))
    rows: list[_Row] = []
    end, rest = 1, ""
    try:
        for values in reader:
            rows.append(_row(values, columns, "".join(lines[end : reader.line_num])))
            end = reader.line_num
    except (csv.Error, ValueError) as error:
        rest = "".join(lines[end:])
        # A cut row has no line feed, or ends within quotes.
        is_cut = not rest.endswith("\n") or rest.count('"') % 2
        if reader.line_num < len(lines) or not is_cut:
            raise ValueError("not rows of CSV") from error
    groups = _by_picture(rows)
    if groups and rest.startswith(csv_line((groups[-1][0].picture, "")).rstrip("\n")):
        del groups[-1]
    full = _full(groups)
    records = [
        _Record(
            group[0].picture,
            None if len(group) < full[_key(group)] else group[0].origin,
            "".join(row.raw for row in group).encode(errors="surrogateescape"),
        )
        for group in groups
    ]
    # In a row without a line feed the last value may be incomplete.
    if groups and not (rest or text.endswith("\n")):
        records[-1] = replace(records[-1], origin=None)
    return records


def _row(values: list[str], columns: int, raw: str) -> _Row:
    """ValueError if ``values`` are not those of a row of ``columns`` columns."""
    name, rank, class_id, _, probability, *origin = values
    _ = int(class_id), float(probability)
    if len(values) != columns:
        raise ValueError("more or fewer columns")
    if columns < len(CSV_HEADER):
        raw = raw.removesuffix("\n") + "," * (len(CSV_HEADER) - columns) + "\n"
    if not any(origin):
        return _Row(name, int(rank), {}, raw)
    model, weights, top_k = origin
    about = {"model": model, "weights": weights or None, "top_k": int(top_k)}
    return _Row(name, int(rank), about, raw)


def _by_picture(rows: list[_Row]) -> list[list[_Row]]:
    """The rows of each answer; a picture may have several answers, one after the other."""
    groups: list[list[_Row]] = []
    for row in rows:
        if row.rank == 1 or not groups or groups[-1][0].picture != row.picture:
            groups.append([])
        groups[-1].append(row)
    return groups


def _full(groups: list[list[_Row]]) -> dict[object, int]:
    """By ``_key`` the rows of a complete answer: the most of several, or ``top_k`` if it is alone.

    A network may have fewer classes than ``top_k``.
    """
    counts = Counter(map(_key, groups))
    full: dict[object, int] = {}
    for group in groups:
        key = _key(group)
        rows = len(group) if counts[key] > 1 else int(group[0].origin.get("top_k") or 0)
        full[key] = max(full.get(key, 0), rows)
    return full


def _key(group: list[_Row]) -> object:
    """The origin of an answer, which can be hashed."""
    return tuple(group[0].origin.items())
