"""int8: the folder of photographs, the quantized network, and the gate that refuses it."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from PIL import Image
from torch import nn

from export.errors import ExportError
from export.gate import PICTURE_STEPS
from export.int8 import report
from export.int8.judge import Judged, agreement_of, compare, judge
from export.int8.make import Int8, make, run_of
from export.int8.options import AGREEMENT
from export.int8.photos import LEAST, File, Photo, Photos, find, read
from export.networks import find as find_network
from export.simplify import simplified

NETWORKS = Path(__file__).parents[1] / "networks"
TINY = find_network(str(NETWORKS / "tiny_classifier.py"))
SPEC = TINY.spec()
PICTURES = find_network(str(NETWORKS / "superres2x.py")).spec()
PER_CLASS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: dict[str, Image.Image]) -> Path:
    """Crops of three photographs in sub-folders of the tiny classifier's classes. Read it only."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for label, photograph in zip(SPEC.labels, photographs.values(), strict=True):
        (folder / label).mkdir()
        for i in range(PER_CLASS):
            left, top = random.integers((photograph.width - 100, photograph.height - 100))
            crop = photograph.crop((left, top, left + 100, top + 100))
            crop.save(folder / label / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def photos(folder: Path) -> Photos:
    return read(folder, SPEC)


def _converted(module: nn.Module) -> ov.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ov.convert_model(torch.jit.trace(module, torch.rand(2, 3, 64, 64)))


@pytest.fixture(scope="module")
def exact() -> ov.Model:
    """The tiny classifier in float32. Read it only."""
    return _converted(simplified(_tiny(), TINY.head))


def _tiny() -> nn.Module:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        module = TINY.build(SPEC).eval()
        TINY.untrained(module, SPEC)
    return module


@pytest.fixture(scope="module")
def int8(exact: ov.Model, photos: Photos) -> Int8:
    return make(exact, SPEC, photos, AGREEMENT)


def _digests(photos: Photos) -> list[list[str]]:
    return [[photo.file.sha256 for photo in half] for half in (photos.calibration, photos.judging)]


def test_the_halves_are_disjoint_and_have_every_class(photos: Photos) -> None:
    calibration, judging = map(set, _digests(photos))
    assert not calibration & judging
    assert len(calibration) == len(judging) == 3 * PER_CLASS // 2
    for half in (photos.calibration, photos.judging):
        labels = [photo.file.label for photo in half]
        assert all(labels.count(label) == PER_CLASS // 2 for label in SPEC.labels)


def test_the_split_depends_on_content_alone(folder: Path, photos: Photos, tmp_path: Path) -> None:
    """Neither on names nor on copies, and a photograph twice is not in both halves."""
    for i, path in enumerate(sorted(folder.rglob("*.png"), key=lambda path: path.name)):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.parent.name / f"other-{i}.png")
        shutil.copy(path, tmp_path / path.parent.name / f"again-{i}.png")
    assert _digests(read(tmp_path, SPEC)) == _digests(photos)


def test_photographs_are_what_a_worker_decodes(photos: Photos) -> None:
    photo = photos.judging[0]
    assert photo.pixels.shape == (64, 64, 3)
    batch = photo.input(SPEC)
    assert batch.shape == (1, 3, 64, 64)
    expected = (photo.pixels / 255 - SPEC.mean) / SPEC.std
    np.testing.assert_allclose(batch[0].transpose(1, 2, 0), expected, atol=1e-5)


def test_files_without_classes_have_no_label(folder: Path, tmp_path: Path) -> None:
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        shutil.copy(path, tmp_path / f"{i}.png")
    assert {file.label for file in find(tmp_path, SPEC.labels)} == {None}


def test_unreadable_files_are_counted(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").write_text("ignored")
    read_ = read(tmp_path, SPEC)
    assert [path.name for path in read_.unreadable] == ["notes.txt"]
    assert len(read_.calibration) + len(read_.judging) == 3 * PER_CLASS


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], f"{2 * LEAST} are needed, it has 0 different photographs"),
        (["a.txt", "cat/b.jpg"], r"0 different photographs; .*a.txt, .*b.jpg cannot be read"),
        (["cat/a.png", "cats/b.png"], "the network has no class cats"),
    ],
)
def test_folders_that_are_refused(files: list[str], reason: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(file.encode())
    with pytest.raises(ExportError, match=reason):
        read(tmp_path, SPEC)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"INT8=.*/none: there is no such folder"):
        find(tmp_path / "none", ())


def _judged(exact: list[float], int8: list[float], label: str | None = None) -> Judged:
    photo = Photo(File(Path("a.png"), "", label), np.zeros((4, 4, 3), np.uint8))
    outputs = [np.array([logits], np.float32) for logits in (exact, int8)]
    return Judged.of(SPEC, photo, outputs[0], outputs[1])


def test_the_figures_of_a_classifier() -> None:
    same = _judged([2, 1, 0], [2, 1, 0], "cat")
    other = _judged([0, 0, 9], [0, 9, 0], "horse")
    unlabelled = _judged([0, 0, 9], [0, 0, 9])
    figures = judge(SPEC, [same, other, unlabelled, unlabelled], 0.75)
    assert figures["passed"] is True
    assert figures["agreement"] == 0.75
    assert figures["largest_probability_shift"] == pytest.approx(1, abs=0.01)
    assert figures["mean_probability_shift"] == pytest.approx(0.25, abs=0.01)
    assert (figures["accuracy_float32"], figures["accuracy_int8"]) == (1, 0.5)
    assert judge(SPEC, [same, other, unlabelled, unlabelled], 0.76)["passed"] is False


@pytest.mark.parametrize(("steps", "passed"), [(PICTURE_STEPS, True), (PICTURE_STEPS + 1, False)])
def test_the_limit_of_pictures(steps: float, passed: bool) -> None:
    photo = Photo(File(Path("a.png"), "", None), np.zeros((8, 8, 3), np.uint8))
    before = np.random.default_rng(0).uniform(0.1, 0.9, (1, 3, 16, 16)).round(2).astype(np.float32)
    after = before + np.float32(steps / 255)
    judged = [Judged.of(PICTURES, photo, before, after)]
    figures = judge(PICTURES, judged, AGREEMENT)
    assert figures["picture_steps"] == pytest.approx(steps, abs=0.01)
    assert figures["passed"] is passed


def test_pictures_of_another_structure_fail() -> None:
    """Noise of one step changes flat areas by little on average, and their structure entirely."""
    photo = Photo(File(Path("a.png"), "", None), np.zeros((8, 8, 3), np.uint8))
    flat = np.full((1, 3, 16, 16), 0.5, np.float32)
    noise = np.random.default_rng(0).choice(np.array([-2, 2], np.float32), flat.shape)
    noise /= 255
    figures = judge(PICTURES, [Judged.of(PICTURES, photo, flat, flat + noise)], AGREEMENT)
    assert figures["picture_steps"] <= PICTURE_STEPS
    assert figures["passed"] is False


def test_a_quantized_network_passes(int8: Int8) -> None:
    assert int8.figures["passed"]
    assert int8.figures["photographs"] == 3 * PER_CLASS // 2
    assert 0 < int8.figures["largest_probability_shift"] < 0.2
    assert "int8_t" in str([constant.get_element_type() for constant in _constants(int8.model)])


def _constants(model: ov.Model) -> list[ov.op.Constant]:
    return [op for op in model.get_ops() if op.get_type_name() == "Constant"]


@pytest.mark.parametrize("layer", ["conv", "head"])
def test_a_damaged_layer_fails(layer: str, exact: ov.Model, int8: Int8, photos: Photos) -> None:
    """One layer's weights in another order, in a network that has passed."""
    damaged = int8.model.clone()
    [weights] = [
        constant
        for constant in _constants(damaged)
        if np.prod(constant.shape) == {"conv": 16 * 3 * 9, "head": 16 * 3}[layer]
    ]
    rolled = ov.op.Constant(np.roll(weights.data, 1, axis=0))
    weights.output(0).replace(rolled.output(0))
    judged = compare(SPEC, photos.judging, run_of(exact), run_of(damaged))
    assert judge(SPEC, judged, AGREEMENT)["passed"] is False


def test_layers_return_to_float32_until_the_limit_holds(photos: Photos) -> None:
    """Without the head in float32, int8 changes a sixth of the answers."""
    lines: list[str] = []
    exact = _converted(_tiny())
    restored = make(exact, SPEC, photos, 0.99, lines.append)
    assert len(lines) > 1, "the first attempt was good enough: the test shows nothing"
    again = compare(SPEC, photos.calibration, run_of(exact), run_of(restored.model))
    assert agreement_of(again) >= 0.99


def test_the_report(int8: Int8, tmp_path: Path) -> None:
    text = report.table(int8.figures)
    assert "accuracy in int8" in text
    assert "int8                               passes" in text
    report.draw(SPEC, int8.judged, int8.figures, tmp_path / "run" / "int8.png")
    with Image.open(tmp_path / "run" / "int8.png") as picture:
        assert picture.width > 1000


def test_the_report_of_pictures_and_of_photographs_without_classes(
    int8: Int8, tmp_path: Path
) -> None:
    bare = [dataclasses.replace(one, photo=_unlabelled(one.photo)) for one in int8.judged]
    figures = judge(SPEC, bare, AGREEMENT)
    assert "accuracy" not in report.table(figures)
    report.draw(SPEC, bare, figures, tmp_path / "classes.png")
    picture = np.zeros((1, 3, 16, 16), np.float32)
    judged = [Judged.of(PICTURES, bare[0].photo, picture, picture)]
    figures = judge(PICTURES, judged, AGREEMENT)
    assert "SSIM, worst photograph" in report.table(figures)
    report.draw(PICTURES, judged, figures, tmp_path / "pictures.png")


def _unlabelled(photo: Photo) -> Photo:
    return dataclasses.replace(photo, file=dataclasses.replace(photo.file, label=None))
