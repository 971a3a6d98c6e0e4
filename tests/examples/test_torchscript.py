"""examples/python and examples/cpp, run as a person runs them, against eager PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests import eager
from tests.examples.conftest import REFUSED_MODELS, REFUSED_PICTURES, Programs
from tests.examples.run import Run, checkout, difference, ranking, run, shell_blocks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cpp")]  # built once

# Rounding to 8 bits alone is 0.25 on average, and 0.5 at most.
MEAN_STEPS = 0.3


@pytest.mark.parametrize("way", ["python", "cmake", "make"])
def test_the_readme_s_commands(
    request: pytest.FixtureRequest,
    model_store: Path,
    photographs: dict[str, Image.Image],
    tmp_path: Path,
    way: str,
) -> None:
    programs: Programs = request.getfixturevalue("python" if way == "python" else "cpp")
    if way == "python":
        folder = checkout(tmp_path, "python", model_store, photographs["chelsea"])
        (block,) = shell_blocks("Python")
    else:
        folder, block = request.getfixturevalue("built")[way], shell_blocks("C++")[2]
    ran = run("bash", "-euc", block, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    *lines, last = ran.stdout.splitlines()
    assert last == "zebra.png: 384x256"
    with Image.open(folder / "photo.jpg") as photo:
        expected, painted = dict(eager.classified(photo, 10)), eager.translated(photo)
    labels = ranking("\n".join(lines))
    assert len(labels) == 5
    for label, probability in labels:
        assert probability == pytest.approx(expected[label], abs=programs.jpeg)
    assert difference(folder / "zebra.png", painted).mean() <= 2


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_the_ranking_is_that_of_eager(
    programs: Programs,
    model_store: Path,
    photographs: dict[str, Image.Image],
    tmp_path: Path,
    name: str,
) -> None:
    photo = tmp_path / "photo.png"
    photographs[name].save(photo)
    arguments = (model_store / "resnet101.pt", photo, "--device", "cpu")
    ran = programs.run("classify", *arguments, number=7, alone=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.endswith("untrained weights on cpu\n")
    actual, expected = ranking(ran.stdout), eager.classified(photographs[name], 30)
    assert len(actual) == 7
    by_label = dict(expected)
    for (label, probability), (_, at_this_rank) in zip(actual, expected, strict=False):
        assert probability == pytest.approx(by_label[label], abs=programs.probability)
        # The same order, except for classes that the tolerance does not tell apart.
        assert by_label[label] == pytest.approx(at_this_rank, abs=programs.probability)
    if programs.suffix == ".py":
        assert [label for label, _ in actual] == [label for label, _ in expected[:7]]


@pytest.mark.parametrize(("name", "size"), [("astronaut", None), ("coffee", 96)])
def test_the_picture_is_that_of_eager(
    programs: Programs,
    model_store: Path,
    photographs: dict[str, Image.Image],
    tmp_path: Path,
    name: str,
    size: int | None,
) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "out.png"
    photographs[name].save(photo)
    arguments = (model_store / "cyclegan.pt", photo, out)
    ran = programs.run("translate", *arguments, number=size, alone=True)
    assert ran.returncode == 0, ran.stderr
    steps = difference(out, eager.translated(photographs[name], size or 256))
    assert steps.mean() <= MEAN_STEPS
    assert steps.max() <= programs.step


@pytest.mark.parametrize(("angle", "size"), [(0, (104, 68)), (90, (68, 104))])
def test_a_longer_side_becomes_a_multiple_of_4(
    programs: Programs,
    model_store: Path,
    photographs: dict[str, Image.Image],
    tmp_path: Path,
    angle: int,
    size: tuple[int, int],
) -> None:
    # 68 x 451 / 300 = 102.2, which torchvision would cut to 102.
    picture = photographs["chelsea"].rotate(angle, expand=True)
    photo, out = tmp_path / "photo.png", tmp_path / "out.png"
    picture.save(photo)
    ran = programs.call("translate", model_store / "cyclegan.pt", photo, out, number=68)
    assert ran.stdout == f"{out}: {size[0]}x{size[1]}\n"
    resized = picture.resize(size, Image.Resampling.BILINEAR)
    steps = difference(out, eager.translated(resized, 68))
    assert steps.mean() <= MEAN_STEPS
    assert steps.max() <= programs.step


def test_transparency_is_on_white(
    programs: Programs, model_store: Path, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "out.png"
    mask = Image.linear_gradient("L").resize(photographs["coffee"].size)
    picture = photographs["coffee"].copy()
    picture.putalpha(mask)
    picture.save(photo)
    white = Image.new("RGB", picture.size, "white")
    white.paste(photographs["coffee"], mask=mask)
    ran = programs.call("translate", model_store / "cyclegan.pt", photo, out, number=96)
    assert ran.returncode == 0, ran.stderr
    assert difference(out, eager.translated(white, 96)).mean() <= 0.5


def assert_refused(ran: Run, why: str) -> None:
    """One line and status 1; a signal would be negative."""
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr.startswith("error: ")
    assert why in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""


def test_a_message_is_one_line_and_status_1(programs: Programs, refused: Path) -> None:
    ran = programs.run("classify", refused / "truncated.pt", "photo.png")
    assert_refused(ran, f"{refused / 'truncated.pt'} is not a TorchScript file")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(("model", "why"), REFUSED_MODELS.items())
def test_a_model_that_is_refused(
    programs: Programs, refused: Path, tmp_path: Path, model: str, why: str
) -> None:
    ran = programs.call("translate", refused / model, "photo.png", tmp_path / "out.png")
    assert_refused(ran, why)
    assert str(refused / model) in ran.stderr


@pytest.mark.parametrize("picture", REFUSED_PICTURES)
def test_a_picture_that_is_refused(
    programs: Programs, model_store: Path, refused: Path, tmp_path: Path, picture: str
) -> None:
    out = tmp_path / "out.png"
    ran = programs.call("translate", model_store / "cyclegan.pt", refused / picture, out)
    assert_refused(ran, str(refused / picture))
    assert not out.exists()


@pytest.mark.parametrize(
    ("size", "out", "why"),
    [(66, "out.png", "a multiple of 4"), (64, "nowhere/out.png", "cannot write")],
)
def test_what_cannot_be_done(
    programs: Programs,
    model_store: Path,
    photographs: dict[str, Image.Image],
    tmp_path: Path,
    size: int,
    out: str,
    why: str,
) -> None:
    photo = tmp_path / "photo.png"
    photographs["chelsea"].save(photo)
    arguments = (model_store / "cyclegan.pt", photo, tmp_path / out)
    assert_refused(programs.call("translate", *arguments, number=size), why)


PHOTO = ("a.pt", "b.jpg")


@pytest.mark.parametrize(
    ("language", "program", "arguments"),
    [
        ("python", "classify", ("only.pt",)),
        ("python", "classify", (*PHOTO, "--top-k", "0")),
        ("python", "translate", (*PHOTO, "c.png", "--size", "63")),
        ("cpp", "classify", ()),
        ("cpp", "classify", ("a.pt",)),
        ("cpp", "classify", (*PHOTO, "5", "6")),
        ("cpp", "classify", (*PHOTO, "0")),
        ("cpp", "classify", (*PHOTO, "5x")),
        ("cpp", "classify", (*PHOTO, "99999999999999999999")),
        ("cpp", "classify", (*PHOTO, "--device")),
        ("cpp", "classify", (*PHOTO, "--device", "tpu")),
        ("cpp", "translate", PHOTO),
        ("cpp", "translate", (*PHOTO, "c.png", "63")),
    ],
)
def test_usage(
    request: pytest.FixtureRequest, language: str, program: str, arguments: tuple[str, ...]
) -> None:
    programs: Programs = request.getfixturevalue(language)
    ran = programs.call(program, *arguments)
    assert ran.returncode == 2
    assert ran.stdout == ""
    start = f"usage: {program} MODEL.pt PHOTO " if language == "cpp" else f"usage: {program}.py "
    assert ran.stderr.startswith(start)
