"""Messages of the decoder's errors, and the choice of the decoder by the first bytes.

The corpus has the error code of every kind of file: test_corpus.py.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from handlers.errors import BadImage, UnsupportedFormat
from handlers.pictures.decode import decode
from tests.corpus import by_name
from tests.handlers.support import Save

SUPPORTED = "send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
REFUSED = [
    ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    ("SVG", b'<?xml version="1.0"?><svg/>'),
    ("PDF", b"%PDF-1.7\n"),
    ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    ("Photoshop", b"8BPS\0\x01" + bytes(100)),
    ("ICO", b"\0\0\x01\0\x01\0\x10\x10" + bytes(100)),
    ("JPEG XL", b"\xff\x0a" + bytes(100)),
    ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100)),
    ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100)),
    ("JPEG 2000", b"\xff\x4f\xff\x51" + bytes(100)),
]


@pytest.mark.parametrize(("name", "data"), REFUSED)
def test_the_message_names_the_format_and_the_supported_ones(name: str, data: bytes) -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        decode(data)
    assert caught.value.message == f"{name} is not supported: {SUPPORTED}"


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
def test_the_message_for_heic_says_how_to_convert_it(brand: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match=r"HEIC .* JPEG .*iPhones.*Most Compatible"):
        decode(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(100))


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("JPEG", "jpeg"),
        ("PNG", "png"),
        ("WEBP", "webp lossy"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("TIFF", "tiff"),
        ("AVIF", "avif"),
    ],
)
def test_the_message_for_a_damaged_picture_names_its_format(name: str, case: str) -> None:
    with pytest.raises(BadImage, match=f"the {name} cannot be decoded: it is damaged or cut short"):
        decode(by_name()[f"{case} cut at 50%"].data)


@pytest.mark.parametrize("seed", range(5))
def test_the_message_for_random_bytes_names_the_supported_formats(seed: int) -> None:
    with pytest.raises(BadImage, match=f"the bytes are no picture: {SUPPORTED}"):
        decode(np.random.default_rng(seed).bytes(1000))


def test_the_first_bytes_choose_the_decoder(saved: Save) -> None:
    """The bounding box of this valid PCX equals AVIF's first bytes: Pillow must not read a PCX."""
    data = bytearray(saved(Image.new("L", (508, 753), 99), "PCX"))
    data[4:12] = b"ftypavis"
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("PCX", (508, 753))
    with pytest.raises(BadImage, match="AVIF cannot be decoded"):
        decode(bytes(data))
