"""Files of results that a later run adds to, whatever an interrupted one left in them."""

from __future__ import annotations

import csv
import json
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


def write(path: Path, *names: str, is_csv: bool) -> set[str]:
    """Add results for ``names``; what was there before."""
    results = Results(path, is_csv=is_csv)
    for name in names:
        results.add(name, ANSWER)
    results.close()
    return results.done


def read(path: Path, *, is_csv: bool) -> list[str]:
    """The pictures in ``path``, as another program reads it."""
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
def test_whatever_an_interrupted_run_left_is_mended(tmp_path: Path, is_csv: bool) -> None:
    """Cut at every byte: the pictures that are whole stay, a partial one is done again."""
    path = tmp_path / "results"
    write(path, "a.jpg", "b.jpg", is_csv=is_csv)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        done = write(path, is_csv=is_csv)
        write(path, *sorted({"a.jpg", "b.jpg"} - done), is_csv=is_csv)
        assert read(path, is_csv=is_csv) == ["a.jpg", "b.jpg"]


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    for is_csv in (False, True):
        path = tmp_path / f"results{is_csv}"
        write(path, name, is_csv=is_csv)
        assert write(path, "b.jpg", is_csv=is_csv) == {name}
        assert write(path, is_csv=is_csv) == {name, "b.jpg"}


@pytest.mark.parametrize(("text", "is_csv"), [("Dear diary,\n", False), ("a;b\n1;2\n", True)])
def test_other_files_are_left_alone(tmp_path: Path, text: str, is_csv: bool) -> None:
    path = tmp_path / "other"
    path.write_text(text)
    with pytest.raises(ValueError, match="holds something else"):
        Results(path, is_csv=is_csv)
    assert path.read_text() == text
