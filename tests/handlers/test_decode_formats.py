"""Every allowed format gives the picture that went in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from handlers.errors import BadImage, EmptyBody
from handlers.pictures.decode import decode

Save = Callable[..., bytes]

# How Pillow writes it, and how far a sample may be off: nothing where the format is lossless.
FORMATS: dict[str, tuple[str, dict[str, Any], float]] = {
    "JPEG": ("JPEG", {"quality": 95, "subsampling": 0}, 2.5),
    "progressive JPEG": ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 2.5),
    "PNG": ("PNG", {}, 0),
    "lossless WebP": ("WEBP", {"lossless": True}, 0),
    "lossy WebP": ("WEBP", {"quality": 95}, 5),
    "GIF": ("GIF", {}, 6),
    "BMP": ("BMP", {}, 0),
    "TIFF": ("TIFF", {}, 0),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}, 0),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
    "BigTIFF": ("TIFF", {"big_tiff": True}, 0),
    "AVIF": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}, 2.5),
}
EVERY = pytest.mark.parametrize(("format", "how", "tolerance"), FORMATS.values(), ids=FORMATS)


@pytest.fixture(scope="module")
def picture(photographs: dict[str, Image.Image]) -> Image.Image:
    return photographs["chelsea"].resize((75, 50))


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    assert (one.mode, one.size) == (other.mode, other.size)
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


@EVERY
def test_the_picture_comes_back(
    picture: Image.Image, saved: Save, format: str, how: dict[str, Any], tolerance: float
) -> None:
    decoded = decode(saved(picture, format, **how))
    assert mean_difference(decoded, picture) <= tolerance


@EVERY
def test_bytes_after_the_end_do_no_harm(
    picture: Image.Image, saved: Save, format: str, how: dict[str, Any], tolerance: float
) -> None:
    decoded = decode(saved(picture, format, **how) + b"\0trailing\xff\xda" * 50)
    assert mean_difference(decoded, picture) <= tolerance


@EVERY
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_picture_cut_short_is_a_bad_image(
    picture: Image.Image,
    saved: Save,
    format: str,
    how: dict[str, Any],
    tolerance: float,
    kept: float,
) -> None:
    data = saved(picture, format, **how)
    with pytest.raises(BadImage, match="damaged or cut short"):
        decode(data[: int(len(data) * kept)])


def test_an_avif_may_call_itself_an_image_file_first(picture: Image.Image, saved: Save) -> None:
    # The brand avif need only be among the compatible ones, which follow the first.
    data = saved(picture, "AVIF", quality=95, subsampling="4:4:4")
    assert data[4:12] == b"ftypavif"
    decoded = decode(data[:8] + b"mif1" + data[12:])
    assert mean_difference(decoded, picture) <= 2.5


@pytest.mark.parametrize("format", ["GIF", "WEBP", "AVIF", "PNG"])
def test_of_an_animation_the_first_frame(saved: Save, format: str) -> None:
    frames = [Image.new("RGB", (32, 16), color) for color in ("red", "lime", "blue")]
    how: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    data = saved(frames[0], format, save_all=True, append_images=frames[1:], duration=100, **how)
    assert mean_difference(decode(data), frames[0]) <= 2


def test_of_a_document_the_first_page(saved: Save) -> None:
    pages = [Image.new("RGB", size, c) for size, c in (((32, 16), "red"), ((8, 8), "blue"))]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert mean_difference(decode(data), pages[0]) == 0


def test_of_a_camera_jpeg_with_a_preview_the_main_picture(saved: Save) -> None:
    pages = [Image.new("RGB", size, c) for size, c in (((32, 16), "red"), ((8, 8), "blue"))]
    data = saved(pages[0], "MPO", save_all=True, append_images=pages[1:])
    assert mean_difference(decode(data), pages[0]) <= 2


def test_nothing_at_all_is_an_empty_body() -> None:
    with pytest.raises(EmptyBody):
        decode(b"")


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_no_picture(seed: int) -> None:
    with pytest.raises(BadImage, match="no picture: send JPEG, PNG"):
        decode(np.random.default_rng(seed).bytes(1000))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_first_bytes_alone_are_a_bad_image(picture: Image.Image, saved: Save, format: str) -> None:
    noise = np.random.default_rng(0).bytes(1000)
    with pytest.raises(BadImage):
        decode(saved(picture, format)[:12] + noise)
