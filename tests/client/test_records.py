"""Result files: resuming after an interruption at any byte, and refusing other files."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from vision_client import Classification, Prediction
from vision_client.cli.origin import Origin
from vision_client.cli.records import Results

ANSWER = Classification(
    "IMAGENET1K_V1",
    None,
    0.1,
    (Prediction(207, "golden retriever", 0.9629), Prediction(208, 'a "dog", so to speak', 0.02)),
)


def write(
    path: Path,
    *names: str,
    is_csv: bool,
    pictures: Sequence[str] = (),
    classes: int = 2,
    weights: str = "IMAGENET1K_V1",
) -> dict[str, Origin]:
    """Add results for ``names``, in a run that also has ``pictures``; returns what was there."""
    origin: Origin = {"model": "resnet101", "weights": weights, "top_k": classes}
    answer = replace(ANSWER, predictions=ANSWER.predictions[:classes])
    with Results(path, is_csv=is_csv, pictures={*names, *pictures}) as results:
        for name in names:
            if results.earlier.get(name) != origin:
                results.add(name, origin, answer)
    return dict(results.earlier)


def read(path: Path, *, is_csv: bool) -> list[str]:
    """The pictures in ``path``, read with standard parsers."""
    with path.open(newline="") as file:
        if is_csv:
            return [row["picture"] for row in csv.DictReader(file) if row["rank"] == "1"]
        return [json.loads(line)["picture"] for line in file]


@pytest.mark.parametrize("is_csv", [False, True])
def test_a_second_run_goes_on(tmp_path: Path, is_csv: bool) -> None:
    path = tmp_path / "results"
    assert write(path, "a.jpg", 'b, "c".jpg', is_csv=is_csv) == {}
    assert set(write(path, "d.jpg", is_csv=is_csv)) == {"a.jpg", 'b, "c".jpg'}
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


def test_a_network_of_fewer_classes(tmp_path: Path) -> None:
    """One answer of two rows may be cut, but not the second of two rows."""
    path = tmp_path / "results.csv"
    for n, kept in enumerate([set(), set(), {"0.jpg", "1.jpg"}]):
        assert set(write(path, f"{n}.jpg", is_csv=True, classes=5)) == kept


@pytest.mark.parametrize("is_csv", [False, True])
def test_each_picture_of_the_run_ends_with_one_answer(tmp_path: Path, is_csv: bool) -> None:
    """Those of other pictures stay, even twice, as after ``cat`` of two files."""
    path = tmp_path / "results"
    for weights in ("old", "new"):
        write(tmp_path / weights, "a.jpg", "b.jpg", is_csv=is_csv, weights=weights)
    old, new = ((tmp_path / weights).read_bytes() for weights in ("old", "new"))
    header = HEADER if is_csv else b""
    path.write_bytes(old + new.removeprefix(header))
    path.chmod(0o640)
    kept = write(path, is_csv=is_csv, pictures=["b.jpg"], weights="new")
    assert {origin["weights"] for origin in kept.values()} == {"new"}
    assert read(path, is_csv=is_csv) == ["a.jpg", "a.jpg", "b.jpg"]
    write(path, "a.jpg", "b.jpg", is_csv=is_csv, weights="new")
    assert path.read_bytes() == new
    assert path.stat().st_mode & 0o777 == 0o640
    assert {p.name for p in tmp_path.iterdir()} == {"results", "old", "new"}


@pytest.mark.parametrize("is_csv", [False, True])
def test_an_interruption_loses_no_answer(tmp_path: Path, is_csv: bool) -> None:
    """A killed process closes nothing: the earlier answers are still there, and the last counts."""
    path = tmp_path / "results"
    write(path, "a.jpg", "b.jpg", is_csv=is_csv, weights="old")
    before = path.read_bytes()
    origin: Origin = {"model": "resnet101", "weights": "new", "top_k": 2}
    with Results(path, is_csv=is_csv, pictures=["a.jpg", "b.jpg"]) as results:
        results.add("a.jpg", origin, ANSWER)
        killed = path.read_bytes()
    assert killed.startswith(before)
    path.write_bytes(killed)
    kept = write(path, "c.jpg", is_csv=is_csv, weights="new")
    assert {name: about["weights"] for name, about in kept.items()} == {
        "a.jpg": "new",
        "b.jpg": "old",
    }


def test_one_command_at_a_time(tmp_path: Path) -> None:
    """Another one would go on with a file that the first one replaces when it ends."""
    path = tmp_path / "results"
    write(path, "a.jpg", is_csv=False)
    busy = pytest.raises(BlockingIOError, match="another command is writing to it")
    with Results(path, is_csv=False, pictures=["a.jpg"]), busy:
        write(path, "b.jpg", is_csv=False)
    assert write(path, "b.jpg", is_csv=False).keys() == {"a.jpg"}


OLD_ROWS = b'picture,rank,class_id,label,probability\na.jpg,1,2,cat,0.5\n"b,\nc.jpg",1,2,cat,0.5\n'


@pytest.mark.parametrize("cut", [b"", b"d.jpg,1,", b"d.jpg,1,2,cat,0.5"])
def test_csv_of_an_older_version_gets_the_new_columns(tmp_path: Path, cut: bytes) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(OLD_ROWS + cut)
    kept = write(path, "a.jpg", is_csv=True)
    assert kept == {"a.jpg": {}, "b,\nc.jpg": {}}
    with path.open(newline="") as file:
        rows = [(row["picture"], row["weights"]) for row in csv.DictReader(file)]
    others = [("b,\nc.jpg", "")] + [("d.jpg", "")] * cut.endswith(b"5")
    assert rows == [*others, ("a.jpg", "IMAGENET1K_V1"), ("a.jpg", "IMAGENET1K_V1")]


def test_json_lines_of_an_older_version_stay(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(OLD_RECORD + OLD_RECORD.replace(b"a.jpg", b"b.jpg")[:-20])
    assert write(path, "c.jpg", is_csv=False) == {"a.jpg": {}}
    assert path.read_bytes().startswith(OLD_RECORD)
    assert read(path, is_csv=False) == ["a.jpg", "c.jpg"]


@pytest.mark.parametrize("is_csv", [False, True])
def test_a_last_line_without_a_line_feed_stays(tmp_path: Path, is_csv: bool) -> None:
    """Editors may save it like this."""
    path = tmp_path / "results"
    write(path, "a.jpg", "b.jpg", is_csv=is_csv)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    kept = write(path, "c.jpg", is_csv=is_csv)
    assert set(kept) == ({"a.jpg"} if is_csv else {"a.jpg", "b.jpg"})
    assert read(path, is_csv=is_csv) == ["a.jpg", "b.jpg", "c.jpg"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    for is_csv in (False, True):
        path = tmp_path / f"results{is_csv}"
        write(path, name, is_csv=is_csv)
        assert set(write(path, "b.jpg", is_csv=is_csv)) == {name}
        assert set(write(path, is_csv=is_csv)) == {name, "b.jpg"}


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
    assert set(write(path, "c.jpg", is_csv=False)) == {"a\u2028b.jpg"}


OLD_RECORD = b'{"picture": "a.jpg", "weights": null, "predictions": []}\n'
RECORD = b'{"picture": "a.jpg", "model": "m", "weights": null, "top_k": 5, "predictions": []}\n'
HEADER = b"picture,rank,class_id,label,probability,model,weights,top_k\n"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff\x00"
JSON_LINES = {
    "text": b"Dear diary,\n",
    "text without a line feed": b"Dear diary,",
    "an empty line": b"\n",
    "empty lines, then results": b"\n\n" + RECORD,
    "binary": PNG,
    "binary of one line": PNG.replace(b"\n", b""),
    "results as CSV": HEADER + b"a.jpg,1,2,cat,0.5,m,w,1\n",
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
    "a row without its last column": HEADER + b"a.jpg,1,2,cat,0.5,m,w\n",
    "rows of an older version with more columns": OLD_ROWS + b"a.jpg,1,2,cat,0.5,m,w,1\n",
    "rows without numbers": HEADER + b"a.jpg,first,2,cat,0.5,m,w,1\n",
    "rows that are not CSV": HEADER + b'"a"b,1,2,cat,0.5,m,w,1\na.jpg,1,2,cat,0.5,m,w,1\n',
    "a last row that is not CSV": HEADER + b'a.jpg,1,2,cat,0.5,m,w,1\n"a"b,1,2,cat,0.5,m,w,1\n',
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
    assert write(tmp_path / "link", "a.jpg", is_csv=True) == {}
    assert set(write(tmp_path / "link", "b.jpg", is_csv=True)) == {"a.jpg"}
    assert read(tmp_path / "results", is_csv=True) == ["a.jpg", "b.jpg"]


def test_paths_that_are_not_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(ValueError, match="not a regular file"):
            write(path, is_csv=False)


def test_an_answer_that_was_cut_before_other_runs_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write(path, "a.jpg", "b.jpg", is_csv=True)
    path.write_bytes(path.read_bytes()[: -len(b"b.jpg,2")])
    cut = path.read_bytes().rpartition(b"b.jpg,2")[0]
    path.write_bytes(cut)
    write(path, "c.jpg", is_csv=True)
    assert set(write(path, "b.jpg", is_csv=True)) == {"a.jpg", "c.jpg"}
    with path.open(newline="") as file:
        assert [row["picture"] for row in csv.DictReader(file)].count("b.jpg") == 2


ORIGIN: Origin = {"model": "resnet101", "weights": "w", "top_k": 2}


@pytest.mark.parametrize("is_csv", [False, True])
def test_a_file_that_an_editor_replaces_is_continued(tmp_path: Path, is_csv: bool) -> None:
    path, other = tmp_path / "results", tmp_path / "other"
    write(path, "a.jpg", is_csv=is_csv)
    with Results(path, is_csv=is_csv, pictures=["b.jpg", "c.jpg"]) as results:
        results.add("b.jpg", ORIGIN, ANSWER)
        other.write_bytes(path.read_bytes().removesuffix(b"\n"))
        other.replace(path)
        results.add("c.jpg", ORIGIN, ANSWER)
    assert read(path, is_csv=is_csv) == ["a.jpg", "b.jpg", "c.jpg"]


def test_answers_that_another_program_removes_are_reported(tmp_path: Path) -> None:
    path, other = tmp_path / "results", tmp_path / "other"
    results = Results(path, is_csv=False, pictures=["a.jpg", "b.jpg", "c.jpg"])
    results.add("a.jpg", ORIGIN, ANSWER)
    path.unlink()
    results.add("b.jpg", ORIGIN, ANSWER)
    other.write_bytes(b"mine")
    other.replace(path)
    with pytest.raises(OSError, match="which another program replaced, cannot be continued"):
        results.add("c.jpg", ORIGIN, ANSWER)
    other.write_bytes(b"")
    other.replace(path)
    results.add("c.jpg", ORIGIN, ANSWER)
    with pytest.raises(OSError, match="removed 2 answers of this run; repeat the command"):
        results.close()
    assert read(path, is_csv=False) == ["c.jpg"]


def test_lines_of_another_program_are_left(tmp_path: Path) -> None:
    path = tmp_path / "results"
    results = Results(path, is_csv=False, pictures=["a.jpg"])
    results.add("a.jpg", ORIGIN, ANSWER)
    with path.open("a") as file:
        file.write("Dear diary,\n")
    with pytest.raises(OSError, match="another program wrote to it during the run"):
        results.close()
    assert path.read_text().endswith("Dear diary,\n")


def test_a_file_that_is_replaced_before_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by another command that ends at this moment."""
    path = tmp_path / "results"
    write(path, "a.jpg", is_csv=False)
    lock = fcntl.flock

    def replaced(file: IO[bytes], mode: int) -> None:
        monkeypatch.setattr("fcntl.flock", lock)
        (tmp_path / "other").write_bytes(path.read_bytes().replace(b"a.jpg", b"b.jpg"))
        (tmp_path / "other").replace(path)
        lock(file, mode)

    monkeypatch.setattr("fcntl.flock", replaced)
    assert set(write(path, "c.jpg", is_csv=False)) == {"b.jpg"}
    assert read(path, is_csv=False) == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr("fcntl.flock", unsupported)
    write(tmp_path / "results", "a.jpg", is_csv=False)
    assert read(tmp_path / "results", is_csv=False) == ["a.jpg"]
