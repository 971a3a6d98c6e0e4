"""Result files: resuming after an interruption at any byte, and refusing other files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from vision_client import Classification, Prediction
from vision_client.cli.records import Results

ANSWER = Classification(
    "IMAGENET1K_V1",
    None,
    0.1,
    (Prediction(207, "golden retriever", 0.9629), Prediction(208, 'a "dog", so to speak', 0.02)),
)


def write(
    path: Path, *names: str, is_csv: bool, pictures: Sequence[str] = (), classes: int = 2
) -> set[str]:
    """Add results for ``names``, in a run that also has ``pictures``; returns what was there."""
    results = Results(path, is_csv=is_csv, pictures={*names, *pictures}, classes=classes)
    answer = replace(ANSWER, predictions=ANSWER.predictions[:classes])
    for name in names:
        if name not in results.done:
            results.add(name, answer)
    results.close()
    return results.done


def read(path: Path, *, is_csv: bool) -> list[str]:
    """The pictures in ``path``, read with standard parsers."""
    with path.open(newline="") as file:
        if is_csv:
            return [row["picture"] for row in csv.DictReader(file) if row["rank"] == "1"]
        return [json.loads(line)["picture"] for line in file]


@pytest.mark.parametrize("is_csv", [False, True])
def test_a_second_run_goes_on(tmp_path: Path, is_csv: bool) -> None:
    path = tmp_path / "results"
    assert write(path, "a.jpg", 'b, "c".jpg', is_csv=is_csv) == set()
    assert write(path, "d.jpg", is_csv=is_csv) == {"a.jpg", 'b, "c".jpg'}
    assert read(path, is_csv=is_csv) == ["a.jpg", 'b, "c".jpg', "d.jpg"]


@pytest.mark.parametrize("is_csv", [False, True])
def test_an_interrupted_run_is_resumed(tmp_path: Path, is_csv: bool) -> None:
    """Cut at every byte: complete pictures stay, an incomplete one is repeated."""
    path = tmp_path / "results"
    write(path, "a.jpg", "b.jpg", is_csv=is_csv)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        write(path, "a.jpg", "b.jpg", is_csv=is_csv)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("is_csv", [False, True])
def test_a_run_of_other_photographs_removes_only_incomplete_records(
    tmp_path: Path, is_csv: bool
) -> None:
    """A CSV row that may be complete stays, because its picture is not classified again."""
    path = tmp_path / "results"
    write(path, "a.jpg", "b.jpg", is_csv=is_csv)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        write(path, "c.jpg", is_csv=is_csv)
        assert read(path, is_csv=is_csv) in (
            ["c.jpg"],
            ["a.jpg", "c.jpg"],
            ["a.jpg", "b.jpg", "c.jpg"],
        )


def test_runs_of_fewer_classes_keep_each_other(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write(path, "a.jpg", is_csv=True)
    for name in ("b.jpg", "c.jpg", "d.jpg"):
        write(path, name, is_csv=True, classes=1)
    write(path, "e.jpg", is_csv=True)
    with path.open(newline="") as file:
        rows = [(row["picture"], row["rank"]) for row in csv.DictReader(file)]
    assert rows == [
        ("a.jpg", "1"), ("a.jpg", "2"), ("b.jpg", "1"), ("c.jpg", "1"), ("d.jpg", "1"),
        ("e.jpg", "1"), ("e.jpg", "2"),
    ]  # fmt: skip


def test_only_the_rows_at_the_end_are_removed(tmp_path: Path) -> None:
    """A picture may be in the file twice, for example after ``cat`` of two files."""
    path = tmp_path / "results.csv"
    pictures = ("a.jpg", "a.jpg", "a.jpg", "b.jpg", "c.jpg", "b.jpg")
    ranks = (1, 2, 3, 1, 1, 1)
    lines = [f"{name},{rank},1,cat,0.1\n" for name, rank in zip(pictures, ranks, strict=True)]
    path.write_text(HEADER.decode() + "".join(lines))
    write(path, is_csv=True, pictures=["b.jpg"], classes=3)
    assert path.read_text() == HEADER.decode() + "".join(lines[:-1])


@pytest.mark.parametrize("is_csv", [False, True])
def test_a_last_line_without_a_line_feed_stays(tmp_path: Path, is_csv: bool) -> None:
    """Editors may save it like this."""
    path = tmp_path / "results"
    write(path, "a.jpg", "b.jpg", is_csv=is_csv)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert write(path, "c.jpg", is_csv=is_csv) == {"a.jpg", "b.jpg"}
    assert read(path, is_csv=is_csv) == ["a.jpg", "b.jpg", "c.jpg"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    for is_csv in (False, True):
        path = tmp_path / f"results{is_csv}"
        write(path, name, is_csv=is_csv)
        assert write(path, "b.jpg", is_csv=is_csv) == {name}
        assert write(path, is_csv=is_csv) == {name, "b.jpg"}


@pytest.mark.parametrize("is_csv", [False, True])
@pytest.mark.parametrize("character", "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
def test_only_a_line_feed_ends_a_line(tmp_path: Path, character: str, is_csv: bool) -> None:
    """``str.splitlines`` splits at all of these, and file names may contain them."""
    name = f"a{character}b.jpg"
    path = tmp_path / "results"
    write(path, name, "d.jpg", is_csv=is_csv)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        write(path, name, "d.jpg", is_csv=is_csv)
        assert path.read_bytes() == whole


def test_lines_rewritten_by_another_program(tmp_path: Path) -> None:
    """As by ``jq -c``: no spaces, and Unicode without escapes."""
    path = tmp_path / "results.jsonl"
    write(path, "a\u2028b.jpg", is_csv=False)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n")
    assert write(path, "c.jpg", is_csv=False) == {"a\u2028b.jpg"}


RECORD = b'{"picture": "a.jpg", "weights": null, "predictions": []}\n'
HEADER = b"picture,rank,class_id,label,probability\n"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff\x00"
JSON_LINES = {
    "text": b"Dear diary,\n",
    "text without a line feed": b"Dear diary,",
    "an empty line": b"\n",
    "empty lines, then results": b"\n\n" + RECORD,
    "binary": PNG,
    "binary of one line": PNG.replace(b"\n", b""),
    "results as CSV": HEADER + b"a.jpg,1,2,cat,0.5\n",
    "other objects": b'{"id": 1}\n',
    "another object without a line feed": b'{"id": 1}',
    "objects with a picture": b'{"picture": "a.jpg", "note": "mine"}\n',
    "an object with a picture": b'{"picture": "a.jpg", "note": "mine"}',
    "a picture without a name": b'{"picture": 1',
    "a name of another type": b'{"picture": ["a.jpg"], "weights": null, "predictions": []}\n',
    "results, then text": RECORD + b"Dear diary,",
    "results, then an object": RECORD + b'{"picture": "b.jpg", "note": "mine"}',
    "text, then results": b"Dear diary,\n" + RECORD,
    "deep": b'{"picture": "a.jpg", "weights": null, "predictions": ' + b"[" * 100_000 + b"\n",
}
CSV_ROWS = {
    "text": b"Dear diary,\n",
    "text without a line feed": b"Dear diary,",
    "an empty line": b"\n" + HEADER,
    "binary": PNG,
    "binary of one line": PNG.replace(b"\n", b""),
    "results as JSON lines": RECORD,
    "other columns": b"a;b\n1;2\n",
    "other columns without a line feed": b"picture,label",
    "more columns": HEADER.replace(b"\n", b",note\n"),
    "rows of other columns": HEADER + b"a.jpg,1\n",
    "rows without numbers": HEADER + b"a.jpg,first,2,cat,0.5\n",
    "rows that are not CSV": HEADER + b'"a"b,1,2,cat,0.5\na.jpg,1,2,cat,0.5\n',
    "a last row that is not CSV": HEADER + b'a.jpg,1,2,cat,0.5\n"a"b,1,2,cat,0.5\n',
}


@pytest.mark.parametrize(
    ("content", "is_csv"),
    [
        pytest.param(content, is_csv, id=f"{name} {'csv' if is_csv else 'json'}")
        for is_csv, contents in ((False, JSON_LINES), (True, CSV_ROWS))
        for name, content in contents.items()
    ],
)
def test_other_files_are_left_alone(tmp_path: Path, content: bytes, is_csv: bool) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    (tmp_path / "link").symlink_to(path)
    for name in ("other", "link"):
        with pytest.raises(ValueError, match="was not changed; choose another"):
            write(tmp_path / name, is_csv=is_csv)
        assert path.read_bytes() == content


def test_a_link_to_results_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "results")
    assert write(tmp_path / "link", "a.jpg", is_csv=True) == set()
    assert write(tmp_path / "link", "b.jpg", is_csv=True) == {"a.jpg"}
    assert read(tmp_path / "results", is_csv=True) == ["a.jpg", "b.jpg"]


def test_paths_that_are_not_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(ValueError, match="not a regular file"):
            write(path, is_csv=False)
