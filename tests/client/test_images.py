"""The server computes the same answer from a PIL image as from the file that it was opened from."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps

from handlers.pictures.decode import decode
from handlers.pictures.limits import LIMITS, PROFILE_BYTES
from handlers.pictures.resample import resample
from tests.corpus import gif, jpeg, metadata, tiff
from tests.corpus.case import Case, saved
from tests.specs import CYCLEGAN
from vision_client import images
from vision_client.pictures import encoded

LARGEST = LIMITS.request_bytes
# What Pillow itself forgets when it decodes them.
FORGOTTEN = {
    "tiff white is zero 16 bit ii",
    "tiff float32 white is zero",
    "tiff gray 12 bit",
    "gif first frame inside, background 0",
    "gif first frame inside, background 7",
}


def seen(data: bytes) -> tuple[tuple[int, int], bytes]:
    """The size and the pixels of a file in the server."""
    picture = decode(data)
    return picture.size, picture.tobytes()


def held(image: Image.Image) -> tuple[tuple[int, int], bytes]:
    return image.size, image.tobytes()


def small() -> Iterator[Case]:
    """Of the corpus, the small files that Pillow opens."""
    for family in (metadata, tiff, jpeg, gif):
        for case in family.cases():
            opens = case.name != "png profile chunk unknown compression"
            if opens and case.pixels is not None and len(case.data) < 100_000:
                yield case


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged metadata
def test_every_kind_of_picture_keeps_its_pixels() -> None:
    """A file that is not decoded yet is sent as it is; without its file, an image is encoded."""
    changed = set()
    for case in small():
        with Image.open(io.BytesIO(case.data)) as image:
            assert encoded(image) == case.data, case.name
            image.load()
            sent = encoded(image)
        if seen(sent) != seen(case.data):
            changed.add(case.name)
    assert changed == FORGOTTEN


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "La", "PA", "RGBA", "RGBa", "RGBX", "CMYK",
                                  "YCbCr", "HSV", "I", "F"])  # fmt: skip
def test_every_mode_of_pillow_can_be_sent(photographs: dict[str, Image.Image], mode: str) -> None:
    image = photographs["chelsea"]
    for step in {"La": ["LA"], "PA": ["P"], "RGBa": ["RGBA"], "I": ["L"], "F": ["L"]}.get(mode, []):
        image = image.convert(step)
    image = image.convert(mode)
    expected = image.convert("LA" if mode == "La" else "L" if mode in "IF" else "RGB")
    if mode == "I":
        image = image.point(lambda v: v * 257)  # the server takes 32-bit integers as 16-bit ones
    if mode == "F":
        image = image.point(lambda v: v * (1 / 255))
    difference = np.asarray(decode(encoded(image)), int) - np.asarray(expected.convert("RGB"), int)
    assert np.abs(difference).max() <= 1


@pytest.fixture
def photo(photographs: dict[str, Image.Image], tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(photographs["chelsea"], "JPEG", quality=90))
    return path


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF"])
def test_a_decoded_image_is_sent_as_its_file(
    photographs: dict[str, Image.Image], tmp_path: Path, format: str
) -> None:
    path = tmp_path / "photo"
    path.write_bytes(saved(photographs["chelsea"], format))
    with Image.open(path) as image:
        assert encoded(image) == path.read_bytes()
        image.load()
        assert encoded(image) == path.read_bytes()
        image.putpixel((0, 0), 1 if image.mode == "P" else (255, 0, 255))
        assert seen(encoded(image)) == held(image.convert("RGB"))


def test_no_picture_is_decoded_to_send_its_file(
    photographs: dict[str, Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(photographs["chelsea"], "PNG")
    decoded: list[ImageFile.ImageFile] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image))
    with Image.open(io.BytesIO(data)) as image:
        assert encoded(image) == data
    assert decoded == []


@pytest.mark.parametrize("is_decoded", [False, True])
def test_a_truncated_file_is_not_sent(
    photo: Path, monkeypatch: pytest.MonkeyPatch, is_decoded: bool
) -> None:
    """If Pillow was told to read it, the image has pixels that the server would refuse."""
    photo.write_bytes(photo.read_bytes()[:9000])
    with monkeypatch.context() as patch, Image.open(photo) as image:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        if is_decoded:
            image.load()
        sent = encoded(image)
    assert seen(sent) == held(image)


def test_a_decoded_file_is_sent_as_it_is(photo: Path) -> None:
    with Image.open(photo) as image:
        image.load()
    assert encoded(image) == photo.read_bytes()
    with Image.open(photo) as closed:
        pass
    assert encoded(closed) == photo.read_bytes()
    with photo.open("rb") as file:
        image = Image.open(file)
        file.seek(7)
        assert encoded(image) == photo.read_bytes()
        assert file.tell() == 7


def turn(image: Image.Image) -> None:
    image.getexif()[0x0112] = 6


CHANGES: dict[str, Callable[[Image.Image], object]] = {
    "a pixel": lambda image: image.putpixel((0, 0), (255, 0, 255)),
    "the size": lambda image: image.thumbnail((100, 100)),
    "a smaller decode": lambda image: image.draft("RGB", (100, 100)),
    "the profile": lambda image: image.info.update(icc_profile=metadata.SWAPPED),
    "the orientation": turn,
}


@pytest.mark.parametrize("is_decoded", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_image_is_sent_as_changed(photo: Path, change: str, is_decoded: bool) -> None:
    with Image.open(photo) as image, Image.open(photo) as other:
        for one in (image, other):
            if is_decoded:
                one.load()
            CHANGES[change](one)
        sent = encoded(image)
        if is_decoded and change == "a smaller decode":  # too late: it has no effect
            assert sent == photo.read_bytes()
            return
        expected = saved(other, "PNG", exif=other.getexif())
    assert sent != photo.read_bytes()
    assert seen(sent) == seen(expected)


def test_a_file_that_was_replaced_is_not_sent(photo: Path) -> None:
    with Image.open(photo) as image:
        image.load()
    before = seen(photo.read_bytes())
    photo.write_bytes(saved(Image.new("RGB", image.size), "JPEG"))
    assert seen(encoded(image)) == before
    photo.unlink()
    assert seen(encoded(image)) == before


def test_another_frame_is_sent(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    frames[0].save(tmp_path / "two.tiff", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "two.tiff") as image:
        image.seek(1)
        assert seen(encoded(image)) == held(frames[1])
        image.seek(0)
        assert encoded(image) == (tmp_path / "two.tiff").read_bytes()


def test_a_format_that_the_server_does_not_read_is_encoded(tmp_path: Path) -> None:
    picture = Image.linear_gradient("L").convert("RGB")
    picture.save(tmp_path / "photo.ppm")
    with Image.open(tmp_path / "photo.ppm") as image:
        assert seen(encoded(image)) == held(picture)


def test_threads_may_send_the_same_image(photo: Path) -> None:
    with Image.open(photo) as image, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(encoded, [image] * 64)) == {photo.read_bytes()}


def test_an_image_is_sent_upright_with_its_profile(photographs: dict[str, Image.Image]) -> None:
    image = photographs["chelsea"].copy()
    image.getexif()[0x0112] = 6  # rotated by 90 degrees
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info["icc_profile"] = profile
    with Image.open(io.BytesIO(encoded(image))) as got:
        assert got.size == image.size[::-1]
        assert got.info["icc_profile"] == profile
        assert got.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(("kind", "value"), [(9, -1), (6, -1), (11, 0.5)])
def test_other_exif_is_no_obstacle(photo: Path, kind: int, value: float) -> None:
    """Pillow cannot write such an ImageWidth, of SLONG, SBYTE or FLOAT."""
    number = struct.pack("<f" if kind == 11 else "<i", value)
    entries = struct.pack("<HHIHHHHI", 0x0112, 3, 1, 6, 0, 0x0100, kind, 1) + number
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + bytes(4)
    with Image.open(photo) as image:
        turned = saved(image, "JPEG", exif=exif, quality=90)
    with Image.open(io.BytesIO(turned)) as image:
        image.putpixel((0, 0), (255, 0, 255))
        upright = image.transpose(Image.Transpose.ROTATE_270)
        assert seen(encoded(image)) == held(upright)


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation(photographs: dict[str, Image.Image], orientation: int) -> None:
    image = photographs["chelsea"].copy()
    image.getexif()[0x0112] = orientation
    assert seen(encoded(image)) == held(ImageOps.exif_transpose(image))


@pytest.mark.parametrize(
    "error", [struct.error, SyntaxError, KeyError, Image.DecompressionBombError]
)
def test_every_failure_of_pillow_is_a_value_error(error: type[Exception]) -> None:
    class Broken(Image.Image):
        def load(self) -> None:
            raise error("broken")

    with pytest.raises(ValueError, match=r"Pillow cannot .*broken"):
        encoded(Broken())


def noise(width: int, height: int) -> Image.Image:
    """What no format makes smaller, with the structure of a photograph."""
    smooth = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    grain = np.random.default_rng(0).integers(0, 64, (height, width, 3), np.uint8)
    return Image.fromarray(np.asarray(smooth) // 4 * 3 + grain)


def test_the_limits_are_the_servers() -> None:
    limits = images.PICTURE_BYTES, images.PICTURE_PIXELS, images.PROFILE_BYTES
    assert limits == (LIMITS.request_bytes, LIMITS.pixels, PROFILE_BYTES)


def test_a_large_picture_fits() -> None:
    image = noise(3000, 2000)
    sent = encoded(image)
    assert LARGEST // 2 < len(sent) <= LARGEST
    got = decode(sent)
    assert got.width * 2 == got.height * 3
    for size, difference in ((256, 0.2), (512, 0.3)):
        small, expected = (resample(CYCLEGAN, one, resize=size) for one in (got, image))
        assert small.size == expected.size
        assert np.abs(np.asarray(small, int) - np.asarray(expected, int)).mean() < difference


def test_too_many_pixels_are_shrunk() -> None:
    """They would be refused, although the file is small."""
    with Image.open(io.BytesIO(encoded(Image.new("L", (10_000, 5_001))))) as got:
        assert got.width * got.height <= LIMITS.pixels


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_shrunk_pictures_fit_in_every_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PICTURE_BYTES", 50_000)
    rng = np.random.default_rng(0)
    match mode:
        case "I;16":
            image = Image.fromarray(rng.integers(0, 2**16, (509, 1021)).astype(np.uint16))
        case "I" | "F":
            dtype = np.int32 if mode == "I" else np.float32
            image = Image.fromarray((rng.random((509, 1021)) * 65535).astype(dtype))
        case _:
            image = Image.fromarray(rng.integers(0, 256, (509, 1021, 4)).astype(np.uint8))
            image = (image if mode in ("LA", "RGBA") else image.convert("RGB")).convert(mode)
    for picture in (image, np.asarray(image)) if mode in ("L", "RGB", "RGBA") else (image,):
        sent = encoded(picture)
        assert len(sent) <= 50_000
        assert decode(sent).width > 100
