"""Damaged files raise RequestErrors and nothing else, or give a picture."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from handlers.errors import RequestError
from handlers.imaging import Limits, decode

# Small, so that a mutated size costs no memory here; the limits themselves are tested elsewhere.
LIMITS = Limits(pixels=1_000_000)
ROUNDS = 60


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_mutations(
    saved: Callable[..., bytes], photographs: dict[str, Image.Image], format: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photographs["coffee"].resize((24, 16))
    how = {"compression": "tiff_lzw"} if format == "TIFF" else {}
    original = saved(image, format, **how, **({} if format in ("GIF", "BMP") else {"exif": exif}))
    source = random.Random(format)
    outcomes = set()
    for _ in range(ROUNDS):
        data = mutated(original, source)
        if format == "PNG" and source.random() < 0.8:
            data = resealed(data)
        try:
            picture = decode(data, LIMITS)
        except RequestError as error:
            outcomes.add(type(error).__name__)
        else:
            assert picture.mode == "RGB"
            assert picture.tobytes()
            outcomes.add("picture")
    assert {"picture", "BadImage"} <= outcomes  # mutations of both kinds, or this tests nothing


def mutated(original: bytes, source: random.Random) -> bytes:
    data = bytearray(original)
    kind = source.choice(["flip", "flip", "flip", "cut", "double", "zero"])
    # Most of what can go wrong in a decoder goes wrong in the header.
    reach = len(data) if source.random() < 0.5 else min(len(data), 120)
    if kind == "flip":
        for _ in range(source.randint(1, 8)):
            data[source.randrange(reach)] = source.randrange(256)
        return bytes(data)
    start = source.randrange(reach)
    end = min(start + source.randint(1, 40), len(data))
    if kind == "cut":
        del data[start:end]
    elif kind == "double":
        data[start:start] = data[start:end]
    else:
        data[start:end] = bytes(end - start)
    return bytes(data)


def resealed(data: bytes) -> bytes:
    """A PNG with its chunks' checksums put right, so that what was mutated is looked at."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        end = at + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)
