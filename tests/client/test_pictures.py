"""All representations of a picture are sent with the same pixels."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision_client.pictures import Picture, encoded


@pytest.fixture
def png(photographs: dict[str, Image.Image], tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    photographs["chelsea"].save(path)
    return path


REPRESENTATIONS: dict[str, Callable[[Path], Picture]] = {
    "path": lambda path: path,
    "string": str,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "stream": lambda path: io.BytesIO(path.read_bytes()),
    "image": lambda path: Image.open(io.BytesIO(path.read_bytes())),
    "array": lambda path: np.asarray(Image.open(path)),
    "strided array": lambda path: np.asarray(Image.open(path))[::-1][::-1],
    "rgba array": lambda path: np.asarray(Image.open(path).convert("RGBA")),
}


@pytest.mark.parametrize("kind", REPRESENTATIONS)
def test_every_representation_has_the_same_pixels(png: Path, kind: str) -> None:
    sent = encoded(REPRESENTATIONS[kind](png))
    with Image.open(io.BytesIO(sent)) as got, Image.open(png) as expected:
        assert got.convert("RGB").tobytes() == expected.tobytes()


def test_a_gray_array() -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with Image.open(io.BytesIO(encoded(gray))) as got:
        assert (got.mode, got.size, got.tobytes()) == ("L", (4, 3), gray.tobytes())


def test_an_open_file_is_read_from_its_position(png: Path) -> None:
    with png.open("rb") as file:
        assert encoded(file) == png.read_bytes()


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (None, TypeError, "not NoneType"),
        (12, TypeError, "not int"),
        (io.StringIO("text"), TypeError, "not StringIO of text"),
        (np.zeros((4, 4, 3), np.float32), TypeError, "must be uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, "must be .H, W."),
        (np.zeros((3, 4, 5), np.uint8), ValueError, "not .3, 4, 5."),
        ("nowhere.jpg", FileNotFoundError, "nowhere.jpg"),
        (Path("/"), IsADirectoryError, "directory"),
        (Path("/dev/null"), OSError, "not a regular file"),
    ],
)
def test_other_values_are_refused(picture: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encoded(picture)


def test_a_fifo_is_refused(tmp_path: Path) -> None:
    """Opening it would wait for a writer."""
    os.mkfifo(tmp_path / "cat.jpg")
    with pytest.raises(OSError, match=r"not a regular file.*cat\.jpg"):
        encoded(tmp_path / "cat.jpg")


def test_pillow_may_be_half_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread."""
    monkeypatch.setitem(sys.modules, "PIL.Image", ModuleType("PIL.Image"))
    assert encoded(b"data") == b"data"
