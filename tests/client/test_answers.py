"""Answers are saved in the format that the suffix says, and shown in notebooks."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.client.conftest import OVER_HTTP, Kind
from tests.corpus.case import saved
from tests.standin import Answering
from vision_client import Classification, MissingExtra, Prediction, Translation
from vision_client.tasks.translate import FORMATS, Format


def translation(image: Image.Image, format: str) -> Translation:
    return Translation("mine", "id", 0.1, saved(image, format))


@pytest.fixture
def picture(photographs: dict[str, Image.Image]) -> Image.Image:
    return photographs["chelsea"]


@pytest.mark.parametrize("name", ["q.jpg", "q.JPEG", "q.jpe", "q.jfif", "q.png", "q.webp"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_suffix_is_the_format(
    picture: Image.Image, tmp_path: Path, format: Format, name: str
) -> None:
    answer = translation(picture, format)
    assert answer.format == format
    answer.save(tmp_path / name)
    expected = {"png": "PNG", "ebp": "WEBP"}.get(name[-3:], "JPEG")
    with Image.open(tmp_path / name) as got:
        assert got.format == expected
        difference = np.asarray(got, int) - np.asarray(answer.image(), int)
        assert np.abs(difference).mean() < 3
    if expected == format.upper():  # not encoded again
        assert (tmp_path / name).read_bytes() == answer.data
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_link_is_written_through(picture: Image.Image, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    link = tmp_path / "q.png"
    link.symlink_to("folder/latest")
    for format in ("png", "jpeg"):  # at first the file does not exist
        translation(picture, format).save(link)
        assert link.is_symlink()
        with Image.open(folder / "latest") as got:
            assert got.format == "PNG"
    assert [path.name for path in folder.iterdir()] == ["latest"]


def test_another_suffix_is_refused(picture: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"q\.gif: \.gif is not one of \.png, \.jpg"):
        translation(picture, "png").save(tmp_path / "q.gif")
    assert list(tmp_path.iterdir()) == []


def test_without_pillow(
    picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how to do without it."""
    png, jpeg = (translation(picture, format) for format in ("png", "jpeg"))
    monkeypatch.setitem(sys.modules, "PIL", None)
    png.save(tmp_path / "q.png")
    with pytest.raises(MissingExtra, match=r"translate.*format='jpeg'.*vision-client\[images\]"):
        png.save(tmp_path / "q.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["q.png"]
    assert png._repr_png_() == png.data
    assert jpeg._repr_png_() is None


@OVER_HTTP
def test_jpg_is_jpeg(kind: Kind, picture: Image.Image) -> None:
    with Answering.started(body=saved(picture, "JPEG")) as server:
        kind.make(server.url).translate(b"x", format="jpg")
    assert server.asked[0]["x-format"] == "jpeg"


@pytest.mark.parametrize("format", FORMATS)
def test_a_notebook_shows_a_translation(picture: Image.Image, format: Format) -> None:
    answer = translation(picture, format)
    shown = answer._repr_png_()
    assert shown is not None
    with Image.open(io.BytesIO(shown)) as got:
        assert got.format == "PNG"
        assert got.tobytes() == answer.image().tobytes()


def test_a_notebook_shows_a_classification() -> None:
    """Labels are text from the server, so they are escaped."""
    predictions = (Prediction(3, "<b>cat</b> & co", 0.75), Prediction(1, "dog", 1e-9))
    html = Classification("untrained", "id", 0.1, predictions)._repr_html_()
    assert "&lt;b&gt;cat&lt;/b&gt; &amp; co" in html
    assert "<b>" not in html
    assert "75.00 %" in html
    assert html.index("cat") < html.index("dog")
    assert "untrained" in html
    assert "untrained" not in Classification("IMAGENET", "id", 0.1, predictions)._repr_html_()
