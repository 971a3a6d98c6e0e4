"""examples/python against eager PyTorch, run as a person runs it."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from tests.examples import eager
from tests.examples.conftest import REFUSED_MODELS, REFUSED_PICTURES

pytestmark = pytest.mark.slow

EXAMPLE = eager.ROOT / "examples" / "python"
# What a machine with PyTorch and Pillow alone does not have.
ABSENT = ("export", "handlers", "numpy", "torchvision", "vision_client")

# Message(program, word, ...)
Message = Callable[..., object]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which ABSENT cannot be imported."""
    folder = tmp_path_factory.mktemp("absent")
    for name in ABSENT:
        raises = f"raise ModuleNotFoundError('not here', name={name!r})\n"
        (folder / f"{name}.py").write_text(raises)
    return {"PYTHONPATH": str(folder)}


def run(name: str, *words: str | Path, env: dict[str, str] | None = None) -> eager.Run:
    return eager.run(sys.executable, EXAMPLE / name, *words, env=env)


@pytest.mark.parametrize("name", ["chelsea", "astronaut"])
def test_probabilities_are_those_of_eager(
    model_store: Path,
    photographs: dict[str, Image.Image],
    alone: dict[str, str],
    tmp_path: Path,
    name: str,
) -> None:
    photo = tmp_path / "photo.jpg"
    photographs[name].save(photo, quality=90)
    words = (model_store / "resnet101.pt", photo, "--top-k", "7", "--device", "cpu")
    ran = run("classify.py", *words, env=alone)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.endswith("untrained weights on cpu\n")
    with Image.open(photo) as picture:
        expected = eager.classified(picture, 7)
    found = eager.ranking(ran.stdout)
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=1e-4)


@pytest.mark.parametrize(("name", "size"), [("astronaut", None), ("coffee", 96)])
def test_the_picture_is_that_of_eager(
    model_store: Path,
    photographs: dict[str, Image.Image],
    alone: dict[str, str],
    tmp_path: Path,
    name: str,
    size: int | None,
) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "out.png"
    photographs[name].save(photo)
    chosen = ("--size", str(size)) if size else ()
    words = (model_store / "cyclegan.pt", photo, out, *chosen)
    ran = run("translate.py", *words, env=alone)
    assert ran.returncode == 0, ran.stderr
    assert eager.off(out, eager.translated(photographs[name], size or 256)).max() <= 1


def test_a_longer_side_becomes_a_multiple_of_4(
    model_store: Path, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    # 68 x 451 / 300 = 102.2, which torchvision would cut to 102.
    photo, out = tmp_path / "photo.png", tmp_path / "out.png"
    photographs["chelsea"].save(photo)
    ran = run("translate.py", model_store / "cyclegan.pt", photo, out, "--size", "68")
    assert ran.stdout == f"{out}: 104x68\n"
    resized = photographs["chelsea"].resize((104, 68), Image.Resampling.BILINEAR)
    assert eager.off(out, eager.translated(resized, 68)).max() <= 1


def test_a_turned_and_a_transparent_picture(
    model_store: Path, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    # Turned by EXIF and half transparent: both at once, as PNG can be.
    mask = Image.linear_gradient("L").resize(photographs["coffee"].size)
    picture = photographs["coffee"].copy()
    picture.putalpha(mask)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise
    photo = tmp_path / "photo.png"
    picture.save(photo, exif=exif)
    white = Image.new("RGB", picture.size, "white")
    white.paste(photographs["coffee"], mask=mask)
    exact = ImageOps.exif_transpose(white.rotate(-90, expand=True))
    ran = run("classify.py", model_store / "resnet101.pt", photo)
    assert ran.returncode == 0, ran.stderr
    found, expected = eager.ranking(ran.stdout), eager.classified(exact, 5)
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=2e-3)


@pytest.fixture
def message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Message:
    """What a program exits with, run in this process: starting PyTorch anew takes seconds."""
    monkeypatch.syspath_prepend(EXAMPLE)

    def exited(name: str, *words: str | Path) -> object:
        monkeypatch.setattr("sys.argv", [name, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXAMPLE / name), run_name="__main__")
        assert capsys.readouterr().out == ""
        return ended.value.code

    return exited


def test_a_message_is_one_line_and_status_1(refused: Path) -> None:
    ran = run("classify.py", refused / "truncated.pt", "photo.png")
    assert ran.returncode == 1
    why = f"{refused / 'truncated.pt'} is no TorchScript file, or is damaged"
    assert ran.stderr == f"error: {why}\n"
    assert ran.stdout == ""


@pytest.mark.parametrize(("model", "why"), REFUSED_MODELS.items())
def test_a_model_that_is_refused(
    message: Message, refused: Path, tmp_path: Path, model: str, why: str
) -> None:
    found = message("translate.py", refused / model, "photo.png", tmp_path / "out.png")
    assert re.fullmatch(f"error: {refused / model}.*{why}.*", str(found))


@pytest.mark.parametrize("picture", REFUSED_PICTURES)
def test_a_picture_that_is_refused(
    message: Message, model_store: Path, refused: Path, tmp_path: Path, picture: str
) -> None:
    out = tmp_path / "out.png"
    found = message("translate.py", model_store / "cyclegan.pt", refused / picture, out)
    assert re.fullmatch(f"error: {refused / picture}.*", str(found))
    assert not out.exists()


def test_16_bits_per_sample_are_refused(
    message: Message, model_store: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.new("I;16", (64, 64), 300).save(photo)
    found = message("translate.py", model_store / "cyclegan.pt", photo, tmp_path / "out.png")
    assert "more than 8 bits" in str(found)


@pytest.mark.parametrize(
    ("size", "out", "why"),
    [("66", "out.png", "a multiple of 4"), ("64", "nowhere/out.png", "cannot write")],
)
def test_what_cannot_be_done(
    message: Message,
    model_store: Path,
    photographs: dict[str, Image.Image],
    tmp_path: Path,
    size: str,
    out: str,
    why: str,
) -> None:
    photo = tmp_path / "photo.png"
    photographs["chelsea"].save(photo)
    words = (model_store / "cyclegan.pt", photo, tmp_path / out, "--size", size)
    assert why in str(message("translate.py", *words))


@pytest.mark.parametrize(
    "words",
    [
        ("classify.py", "only.pt"),
        ("classify.py", "a.pt", "b.jpg", "--top-k", "0"),
        ("translate.py", "a.pt", "b.jpg", "c.png", "--size", "63"),
    ],
)
def test_usage(message: Message, words: tuple[str, ...]) -> None:
    assert message(*words) == 2


def test_torch_and_pillow_are_all_it_imports() -> None:
    files = sorted(EXAMPLE.glob("*.py"))
    imported: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    own = {file.stem for file in files}
    assert imported - own - sys.stdlib_module_names == {"torch", "PIL"}


def test_the_readme_s_commands(
    model_store: Path, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    folder = eager.checkout(tmp_path, "python", model_store, photographs["coffee"])
    (block,) = eager.shell_blocks("Python")
    ran = eager.run("bash", "-euc", block, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    *lines, last = ran.stdout.splitlines()
    assert len(eager.ranking("\n".join(lines))) == 5
    assert last == "zebra.png: 384x256"
    with Image.open(folder / "zebra.png") as zebra:
        assert zebra.size == (384, 256)
