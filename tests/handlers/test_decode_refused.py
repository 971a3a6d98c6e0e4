"""Formats outside the allow-list are named and refused, whatever decoder Pillow has for them."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from PIL import Image

from handlers.errors import BadImage, UnsupportedFormat
from handlers.pictures.decode import decode

Save = Callable[..., bytes]

HEIF = {
    brand: b"\0\0\0\x18ftyp" + brand.encode() + b"\0\0\0\0mif1heic" + bytes(100)
    for brand in ("heic", "heix", "hevc", "mif1", "msf1")
}
REFUSED = {
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "PDF": b"%PDF-1.7\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "Photoshop": b"8BPS\0\x01" + bytes(100),
    "ICO": b"\0\0\x01\0\x01\0\x10\x10" + bytes(100),
    "JPEG XL": b"\xff\x0a" + bytes(100),
}


@pytest.mark.parametrize(("name", "data"), REFUSED.items(), ids=REFUSED)
def test_the_message_names_what_came_and_what_to_send(name: str, data: bytes) -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        decode(data)
    assert caught.value.message == (
        f"{name} is not supported: send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("SVG", b'<?xml version="1.0"?><svg/>'),
        ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100)),
        ("JPEG 2000", b"\xff\x4f\xff\x51" + bytes(100)),
    ],
)
def test_their_other_first_bytes(name: str, data: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        decode(data)


@pytest.mark.parametrize("data", HEIF.values(), ids=HEIF)
def test_heic_comes_with_its_fix(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match=r"HEIC .* JPEG .*iPhones.*Most Compatible"):
        decode(data)


@pytest.mark.parametrize(
    ("format", "name"),
    [("JPEG2000", "JPEG 2000"), ("ICO", "ICO"), ("EPS", "PostScript"), ("PDF", "PDF")],
)
def test_what_pillow_could_read_is_refused(saved: Save, format: str, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        decode(saved(Image.new("RGB", (32, 32), "red"), format))


@pytest.mark.parametrize("format", ["PPM", "TGA", "ICNS", "SGI", "PCX", "DDS", "DIB"])
def test_what_we_have_no_name_for_is_no_picture(saved: Save, format: str) -> None:
    with pytest.raises(BadImage, match="no picture: send JPEG"):
        decode(saved(Image.new("RGB", (32, 32), "red"), format))


@pytest.mark.parametrize("riff", [b"RIFF\x24\0\0\0WAVEfmt ", b"RIFX\x24\0\0\0WEBPVP8L"])
def test_other_riff_files_are_no_picture(riff: bytes) -> None:
    with pytest.raises(BadImage, match="no picture"):
        decode(riff + bytes(100))


def test_first_bytes_bind_the_decoder(saved: Save) -> None:
    """A sound PCX whose bounding box spells AVIF's first bytes reaches no PCX decoder."""
    data = bytearray(saved(Image.new("L", (508, 753), 99), "PCX"))
    data[4:12] = b"ftypavis"
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("PCX", (508, 753))
    with pytest.raises(BadImage, match="AVIF cannot be decoded"):
        decode(bytes(data))
