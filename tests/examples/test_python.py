"""What only examples/python does, and what it imports."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops, ImageOps

from tests import eager
from tests.examples.conftest import Programs
from tests.examples.run import ranking

pytestmark = pytest.mark.slow


def test_a_rotated_and_transparent_picture(
    python: Programs, model_store: Path, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    """Both at once: a PNG with EXIF."""
    mask = Image.linear_gradient("L").resize(photographs["coffee"].size)
    picture = photographs["coffee"].copy()
    picture.putalpha(mask)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise
    photo = tmp_path / "photo.png"
    picture.save(photo, exif=exif)
    white = Image.new("RGB", picture.size, "white")
    white.paste(photographs["coffee"], mask=mask)
    upright = ImageOps.exif_transpose(white.rotate(-90, expand=True))
    ran = python.run("classify", model_store / "resnet101.pt", photo)
    assert ran.returncode == 0, ran.stderr
    actual, expected = ranking(ran.stdout), eager.classified(upright, 5)
    assert [label for label, _ in actual] == [label for label, _ in expected]
    assert [p for _, p in actual] == pytest.approx([p for _, p in expected], abs=2e-3)


def test_16_bits_per_sample_are_refused(
    python: Programs, model_store: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.new("I;16", (64, 64), 300).save(photo)
    ran = python.call("translate", model_store / "cyclegan.pt", photo, tmp_path / "out.png")
    assert ran.returncode == 1
    assert "more than 8 bits" in ran.stderr


def test_it_imports_only_torch_and_pillow(python: Programs) -> None:
    files = sorted(python.folder.glob("*.py"))
    imported: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    own = {file.stem for file in files}
    assert imported - own - sys.stdlib_module_names == {"torch", "PIL"}


def test_a_pt2_answers_as_the_pt(
    python: Programs, model_store: Path, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    photo, pictures = tmp_path / "photo.png", []
    photographs["chelsea"].save(photo)
    for suffix in (".pt", ".pt2"):
        out = tmp_path / f"out{suffix}.png"
        model = model_store / f"cyclegan{suffix}"
        ran = python.run("translate", model, photo, out, number=64, alone=True)
        assert ran.returncode == 0, ran.stderr
        pictures.append(Image.open(out))
    assert max(ImageChops.difference(*pictures).tobytes()) <= 1


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("truncated", "is not a torch.export file, or is damaged"),
        ("foreign", "cannot be checked"),
        ("weights", "misses its golden example on cpu"),
    ],
)
def test_a_pt2_that_is_refused(
    python: Programs, model_store: Path, tmp_path: Path, damage: str, why: str
) -> None:
    sound, path = model_store / "cyclegan.pt2", tmp_path / "damaged.pt2"
    if damage == "truncated":
        path.write_bytes(sound.read_bytes()[:1_000_000])
    else:
        files = {"model.json": ""}
        program = torch.export.load(sound, extra_files=files)
        if damage == "weights":
            *_, last = program.state_dict.values()
            last.data.add_(1)
        torch.export.save(program, path, extra_files=files if damage == "weights" else None)
    ran = python.call("translate", path, "photo.png", tmp_path / "out.png")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"error: {path} ")
    assert why in ran.stderr
    assert ran.stderr.count("\n") == 1
