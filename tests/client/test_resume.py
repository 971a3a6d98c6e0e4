"""Repeating a command: answers are kept only if the same question would give them again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import PREDICTIONS
from tests.client.conftest import invoke as vision
from tests.standin import CLASSIFIER, Answer, Answering

PNG, OTHER_PNG = b"\x89PNG first", b"\x89PNG second"


def answer(weights: str, body: bytes = PREDICTIONS) -> Answer:
    return Answer(200, {"x-model-weights": weights.encode()}, body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """Its weights are ``old-1``."""
    with Answering(answer("old-1")).listening() as server:
        monkeypatch.setenv("VISION_SERVER", server.url)
        yield server


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture(params=["results.jsonl", "results.csv"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def records(path: Path) -> list[tuple[str, ...]]:
    """Picture, model, weights and top-k of each answer, read with standard parsers."""
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = (
            [row for row in csv.DictReader(file) if row["rank"] == "1"]
            if path.suffix == ".csv"
            else [json.loads(line) for line in file]
        )
    keys = ("model", "weights", "top_k")
    return [(Path(row["picture"]).name, *(str(row[key]) for key in keys)) for row in rows]


def test_answers_of_other_weights_are_replaced(
    server: Answering, photos: Path, results: Path
) -> None:
    assert vision("classify", photos, "-o", results, "-k", 1).exit_code == 0
    server.answer = answer("new-2")
    run = vision("classify", photos, "-o", results, "-k", 1)
    assert run.exit_code == 0
    assert "2 asked again: weights old-1, now new-2" in run.stderr
    assert records(results) == [(name, CLASSIFIER, "new-2", "1") for name in ("a.jpg", "b.jpg")]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-k", 2), "top-k 1, now 2"),
        (("-k", 1, "--model", "vit_b_16"), f"model {CLASSIFIER}, now vit_b_16"),
    ],
)
def test_answers_to_other_options_are_replaced(
    server: Answering, photos: Path, results: Path, options: tuple[object, ...], reason: str
) -> None:
    assert vision("classify", photos / "a.jpg", "-o", results, "-k", 1).exit_code == 0
    run = vision("classify", photos, "-o", results, *options)
    assert f"1 asked again: {reason}\n" in run.stderr
    assert [picture for picture, *_ in records(results)] == ["a.jpg", "b.jpg"]
    assert len(server.asked) == 1 + 1 + 2  # the weights, too


def test_the_same_answers_are_kept_wherever_the_server_is(
    server: Answering, photos: Path, results: Path
) -> None:
    vision("classify", photos / "a.jpg", "-o", results, "-k", 1)
    before = results.read_bytes()
    with Answering(server.answer).listening() as moved:
        run = vision("classify", photos, "-o", results, "-k", 1, "-s", moved.url)
        assert (run.exit_code, len(moved.asked)) == (0, 2)
    assert "classified 1 in" in run.stderr
    assert "1 were there already" in run.stderr
    assert results.read_bytes().startswith(before)
    run = vision("classify", photos, "-o", results, "-k", 1)
    assert "classified 0 in" in run.stderr


def test_force_classifies_all_again(server: Answering, photos: Path, results: Path) -> None:
    vision("classify", photos, "-o", results)
    server.asked.clear()
    run = vision("classify", photos, "-o", results, "--force")
    assert "classified 2 in" in run.stderr
    assert len(server.asked) == 2
    assert [picture for picture, *_ in records(results)] == ["a.jpg", "b.jpg"]


def test_answers_of_unknown_weights_are_replaced(
    server: Answering, photos: Path, results: Path
) -> None:
    """As over gRPC without the gateway."""
    server.answer = Answer(200, {}, PREDICTIONS)
    vision("classify", photos, "-o", results)
    run = vision("classify", photos, "-o", results)
    assert "2 asked again: the server does not tell its weights" in run.stderr
    assert [picture for picture, *_ in records(results)] == ["a.jpg", "b.jpg"]


def test_each_photograph_of_standard_input_is_classified(
    server: Answering, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (b"first", b"second"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert "there already" not in vision("classify", "-", "-o", results).stderr
    assert [picture for picture, *_ in records(results)] == ["-", "-"]


def test_an_answer_stays_if_there_is_no_new_one(
    server: Answering, photos: Path, results: Path
) -> None:
    vision("classify", photos, "-o", results, "-k", 1)
    before = results.read_bytes()
    server.first = [answer("new-2"), Answer(400, {}, b"refused")]  # the weights, a.jpg
    server.answer = answer("new-2")
    assert vision("classify", photos, "-o", results, "-k", 1, "-j", 1).exit_code == 1
    assert [weights for _, _, weights, _ in records(results)] == ["old-1", "new-2"]
    server.first = [Answer(503, {}, b"busy")]  # the weights
    run = vision("classify", photos, "-o", results, "-k", 1, "--retries", 0)
    assert (run.exit_code, run.stderr.count("failed")) == (1, 1)
    assert before.splitlines()[0] in results.read_bytes()


def test_a_file_of_an_older_version_says_too_little(
    server: Answering, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "results.csv"
    path.write_text(f"picture,rank,class_id,label,probability\n{photos}/a.jpg,1,1,cat,0.5\n")
    run = vision("classify", photos, "-o", path)
    assert "1 asked again: an older version did not keep the network" in run.stderr
    assert [weights for _, _, weights, _ in records(path)] == ["old-1", "old-1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("r.xlsx",), "name the file r.csv, which spreadsheets open, or r.jsonl"),
        (("r.tsv",), "results are CSV or JSON lines, not .tsv"),
        (("r.csv", "--json"), "r.csv would contain what --json says"),
        (("r.jsonl", "--csv"), "r.jsonl would contain what --csv says"),
    ],
)
def test_a_name_that_promises_another_format_is_refused(
    server: Answering,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(photos)
    monkeypatch.setenv("COLUMNS", "250")
    run = vision("classify", "a.jpg", "-o", *arguments)
    assert run.exit_code == 2
    assert message in run.stderr
    assert {path.name for path in photos.iterdir()} == {"a.jpg", "b.jpg"}
    assert server.asked == []


def test_an_option_names_the_format_of_any_file(
    server: Answering, photos: Path, tmp_path: Path
) -> None:
    assert vision("classify", photos, "-o", tmp_path / "r.txt", "--csv").exit_code == 0
    assert (tmp_path / "r.txt").read_text().startswith("picture,rank,")


def translated(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_pictures_of_other_weights_and_options_are_replaced(
    server: Answering, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    server.answer = answer("old-1", PNG)
    assert vision("translate", photos, "-o", output).exit_code == 0
    run = vision("translate", photos, "-o", output)
    assert "translated 0 in" in run.stderr
    assert "2 were there already" in run.stderr
    server.answer = answer("new-2", OTHER_PNG)
    run = vision("translate", photos / "a.jpg", "-o", output)
    assert "1 asked again: weights old-1, now new-2" in run.stderr
    assert translated(output) == {"a.png": OTHER_PNG, "b.png": PNG}
    server.answer = answer("new-2", PNG)
    run = vision("translate", photos, "-o", output, "--size", 128)
    assert "1 asked again: size default, now 128" in run.stderr
    assert "1 asked again: weights old-1, now new-2, size default, now 128" in run.stderr
    assert translated(output) == {"a.png": PNG, "b.png": PNG}


def test_pictures_of_others_are_kept(server: Answering, photos: Path, tmp_path: Path) -> None:
    """Also one that was edited after the command wrote it; a cut line is no harm."""
    output = tmp_path / "out"
    server.answer = answer("old-1", PNG)
    vision("translate", photos, "-o", output)
    (output / "a.png").write_bytes(b"edited")
    with (output / ".vision.jsonl").open("a") as file:
        file.write('{"picture": "b.p')
    server.answer = answer("new-2", OTHER_PNG)
    run = vision("translate", photos, "-o", output)
    assert "1 kept: this command is not known to have made it; --force replaces it" in run.stderr
    assert translated(output) == {"a.png": b"edited", "b.png": OTHER_PNG}
    assert "1 were there already" in vision("translate", photos / "b.jpg", "-o", output).stderr
    vision("translate", photos, "-o", output, "--force")
    assert translated(output) == {"a.png": OTHER_PNG, "b.png": OTHER_PNG}


@pytest.mark.parametrize(
    ("name", "options", "asked"),
    [
        ("out.png", (), "png"),
        ("new/out.JPG", (), "jpeg"),
        ("out.jpeg", ("--format", "jpg"), "jpeg"),
        ("out.webp", ("--format", "WebP"), "webp"),
    ],
)
def test_a_file_for_a_single_picture(
    server: Answering,
    photos: Path,
    tmp_path: Path,
    name: str,
    options: tuple[str, ...],
    asked: str,
) -> None:
    start = {"png": b"\x89PNG", "jpeg": b"\xff\xd8", "webp": b"RIFF"}[asked]
    first, second = start + b" first", start + b" second"
    server.answer = answer("old-1", first)
    arguments = ("translate", photos / "a.jpg", "-o", tmp_path / name, *options)
    assert vision(*arguments).exit_code == 0
    assert (tmp_path / name).read_bytes() == first
    assert server.asked[-1]["x-format"] == asked
    server.answer = answer("new-2", second)
    assert "exists already: --force replaces it" in vision(*arguments).stderr
    assert (tmp_path / name).read_bytes() == first
    assert vision(*arguments, "-f").exit_code == 0
    assert (tmp_path / name).read_bytes() == second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.jpg", "b.jpg", "-o", "out.png"), "out.png holds one picture: -o DIR"),
        (("a.jpg", "-o", "out.png", "--format", "jpg"), "out.png would be jpeg"),
        (("a.jpg", "-o", "out.gif"), "name it out.png, out.jpg or out.webp"),
        (("a.jpg", "-o", "./a.jpg", "--force"), "would replace the photograph a.jpg"),
        (("a.jpg", "-o", ""), "'' names no folder and no file"),
    ],
)
def test_a_file_that_cannot_be_written(
    server: Answering,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(photos)
    monkeypatch.setenv("COLUMNS", "250")
    run = vision("translate", *arguments)
    assert run.exit_code == 2
    assert message in run.stderr
    assert {path.name for path in photos.iterdir()} == {"a.jpg", "b.jpg"}
    assert server.asked == []


def test_a_folder_named_as_a_picture_stays_a_folder(
    server: Answering, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.png").mkdir()
    server.answer = answer("old-1", PNG)
    assert vision("translate", photos, "-o", tmp_path / "out.png").exit_code == 0
    assert translated(tmp_path / "out.png") == {"a.png": PNG, "b.png": PNG}


@pytest.mark.parametrize("force", [("--force",), ()])
def test_a_picture_of_another_photograph_is_replaced_only_by_force(
    server: Answering, photos: Path, tmp_path: Path, force: tuple[str, ...]
) -> None:
    """Equal names in another folder; a folder that was moved has the same photographs."""
    output, tuesday = tmp_path / "out", tmp_path / "tuesday"
    server.answer = answer("old-1", PNG)
    vision("translate", photos, "-o", output)
    photos = photos.rename(tmp_path / "monday")
    assert "2 were there already" in vision("translate", photos, "-o", output).stderr
    tuesday.mkdir()
    (tuesday / "a.jpg").write_bytes(b"another")
    server.answer = answer("old-1", OTHER_PNG)
    run = vision("translate", tuesday, "-o", output, *force)
    if force:
        assert (run.exit_code, translated(output)["a.png"]) == (0, OTHER_PNG)
    else:
        assert (run.exit_code, translated(output)["a.png"]) == (2, PNG)
        assert "made of another photograph than" in run.stderr.replace("\n", " ")


def test_translations_beside_their_photographs_are_not_translated(
    server: Answering, photos: Path
) -> None:
    server.answer = answer("old-1", PNG)
    assert vision("translate", photos, "-o", photos).exit_code == 0
    run = vision("translate", photos, "-o", photos)
    assert (run.exit_code, set(translated(photos))) == (0, {"a.png", "b.png"})
    assert "2 were there already" in run.stderr


@pytest.mark.parametrize("output", ["out", "out.png"])
def test_another_photograph_of_standard_input(
    server: Answering,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
) -> None:
    server.answer = answer("old-1", PNG)
    codes = []
    for content in (b"first", b"second"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        codes.append(vision("translate", "-", "-o", tmp_path / output).exit_code)
    assert codes == [0, 2]
