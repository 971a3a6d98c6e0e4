"""Every way to store samples gives 8-bit RGB of the same brightness, on white."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from handlers.pictures.decode import decode

Save = Callable[..., bytes]
Color = tuple[int, int, int]
Samples = int | float | tuple[int, ...]


def flat(mode: str, value: Samples) -> Image.Image:
    return Image.new(mode, (16, 16), value)


def palette(*colors: Color) -> Image.Image:
    """A picture all of whose pixels are the palette's last colour."""
    image = flat("P", len(colors) - 1)
    image.putpalette([sample for color in colors for sample in color])
    return image


def only_color(data: bytes) -> Color:
    image = decode(data)
    assert image.mode == "RGB"
    colors = image.getcolors()
    assert colors is not None
    assert len(colors) == 1
    return colors[0][1]  # type: ignore[return-value]


def close(found: Sequence[int], expected: Sequence[int], steps: int) -> bool:
    return all(abs(a - b) <= steps for a, b in zip(found, expected, strict=True))


ON_WHITE: dict[str, tuple[Image.Image, str, dict[str, Any], Color]] = {
    "RGBA half": (flat("RGBA", (255, 0, 0, 128)), "PNG", {}, (255, 127, 127)),
    "RGBA none": (flat("RGBA", (10, 20, 30, 0)), "PNG", {}, (255, 255, 255)),
    "RGBA full": (flat("RGBA", (10, 20, 30, 255)), "PNG", {}, (10, 20, 30)),
    "RGBA TIFF": (flat("RGBA", (255, 0, 0, 128)), "TIFF", {}, (255, 127, 127)),
    "RGBA WebP": (flat("RGBA", (255, 0, 0, 128)), "WEBP", {"lossless": True}, (255, 127, 127)),
    "RGBA AVIF": (flat("RGBA", (255, 0, 0, 128)), "AVIF", {"quality": 100}, (255, 127, 127)),
    "LA half": (flat("LA", (0, 128)), "PNG", {}, (127, 127, 127)),
    "LA TIFF": (flat("LA", (0, 128)), "TIFF", {}, (127, 127, 127)),
    "tRNS on RGB": (flat("RGB", (9, 8, 7)), "PNG", {"transparency": (9, 8, 7)}, (255, 255, 255)),
    "other tRNS on RGB": (flat("RGB", (9, 8, 7)), "PNG", {"transparency": (9, 8, 6)}, (9, 8, 7)),
    "tRNS on L": (flat("L", 10), "PNG", {"transparency": 10}, (255, 255, 255)),
    "tRNS on 1": (flat("1", 0), "PNG", {"transparency": 0}, (255, 255, 255)),
    "tRNS on P": (palette((0, 0, 0), (9, 8, 7)), "PNG", {"transparency": 1}, (255, 255, 255)),
    "alphas of P": (
        palette((0, 0, 0), (200, 100, 0)), "PNG", {"transparency": b"\xff\x80"}, (227, 177, 127),
    ),
    "GIF": (palette((0, 0, 0), (9, 8, 7)), "GIF", {"transparency": 1}, (255, 255, 255)),
}  # fmt: skip


@pytest.mark.parametrize(("image", "format", "how", "expected"), ON_WHITE.values(), ids=ON_WHITE)
def test_transparency_is_on_white(
    saved: Save, image: Image.Image, format: str, how: dict[str, Any], expected: Color
) -> None:
    assert close(only_color(saved(image, format, **how)), expected, 1)


OPAQUE: dict[str, tuple[Image.Image, str, Color]] = {
    "white bit, PNG": (flat("1", 1), "PNG", (255, 255, 255)),
    "black bit, PNG": (flat("1", 0), "PNG", (0, 0, 0)),
    "white bit, TIFF": (flat("1", 1), "TIFF", (255, 255, 255)),
    "white bit, BMP": (flat("1", 1), "BMP", (255, 255, 255)),
    "gray, PNG": (flat("L", 77), "PNG", (77, 77, 77)),
    "gray, JPEG": (flat("L", 77), "JPEG", (77, 77, 77)),
    "gray, BMP": (flat("L", 77), "BMP", (77, 77, 77)),
    "gray, TIFF": (flat("L", 77), "TIFF", (77, 77, 77)),
    "palette, PNG": (palette((1, 2, 3), (200, 100, 50)), "PNG", (200, 100, 50)),
    "palette, GIF": (palette((1, 2, 3), (200, 100, 50)), "GIF", (200, 100, 50)),
    "palette, BMP": (palette((1, 2, 3), (200, 100, 50)), "BMP", (200, 100, 50)),
    "palette, TIFF": (palette((1, 2, 3), (200, 100, 50)), "TIFF", (200, 100, 50)),
    "YCbCr, JPEG": (flat("YCbCr", (76, 85, 255)), "JPEG", (255, 0, 0)),
    "CMYK red, JPEG": (flat("CMYK", (0, 255, 255, 0)), "JPEG", (255, 0, 0)),
    "CMYK white, JPEG": (flat("CMYK", (0, 0, 0, 0)), "JPEG", (255, 255, 255)),
    "CMYK gray, JPEG": (flat("CMYK", (0, 0, 0, 155)), "JPEG", (100, 100, 100)),
    "CMYK, TIFF": (flat("CMYK", (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
}


@pytest.mark.parametrize(("image", "format", "expected"), OPAQUE.values(), ids=OPAQUE)
def test_every_mode_is_rgb(saved: Save, image: Image.Image, format: str, expected: Color) -> None:
    assert close(only_color(saved(image, format)), expected, 2)


@pytest.mark.parametrize("level", [0, 1, 77, 128, 254, 255])
@pytest.mark.parametrize(
    ("mode", "format"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF"), ("I", "TIFF")]
)
def test_16_bits_are_scaled(saved: Save, mode: str, format: str, level: int) -> None:
    assert only_color(saved(flat(mode, level * 257), format)) == (level,) * 3


def test_16_bits_with_a_transparent_level_are_scaled_too(saved: Save) -> None:
    image = Image.fromarray(np.array([[5, 77 * 257]], np.uint16))
    assert image.mode == "I;16"
    decoded = decode(saved(image, "PNG", transparency=5))
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 0)) == (77, 77, 77)


# PNG, 11.2.2: colour types 4 and 6, with 16 bits a sample, which Pillow cannot write.
@pytest.mark.parametrize(
    ("kind", "samples", "expected"),
    [
        (4, (77, 255), (77, 77, 77)),
        (4, (0, 128), (127, 127, 127)),
        (2, (77, 10, 3), (77, 10, 3)),
        (6, (77, 10, 3, 255), (77, 10, 3)),
        (6, (255, 0, 0, 128), (255, 127, 127)),
    ],
)
def test_16_bits_of_several_channels(kind: int, samples: tuple[int, ...], expected: Color) -> None:
    row = b"\0" + struct.pack(f">{len(samples)}H", *(257 * sample for sample in samples))
    assert close(only_color(png(1, 1, 16, kind, row)), expected, 1)


def png(width: int, height: int, bits: int, kind: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.25, 0.5, 1], [0, 64, 128, 255]),
        ([0.2, 0.4], [51, 102]),
        ([0, 50, 100], [0, 128, 255]),
        ([-1, 0, 1], [0, 128, 255]),
    ],
    ids=["from 0 to 1", "inside 0 to 1", "beyond 1", "below 0"],
)
def test_floats_are_scaled(saved: Save, values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert image.mode == "F"
    decoded = decode(saved(image, "TIFF"))
    assert decoded.mode == "RGB"
    assert [decoded.getpixel((x, 0)) for x in range(len(values))] == [(v,) * 3 for v in expected]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_floats_that_are_no_brightness_still_give_a_picture(saved: Save, odd: float) -> None:
    image = Image.fromarray(np.array([[0.5, odd, 0.25]], np.float32))
    assert decode(saved(image, "TIFF")).size == (3, 1)


def test_32_bits_beyond_16_span_their_own_extremes(saved: Save) -> None:
    image = Image.fromarray(np.array([[0, 1_000_000, 500_000]], np.int32))
    assert image.mode == "I"
    decoded = decode(saved(image, "TIFF"))
    assert [decoded.getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (255,) * 3, (128,) * 3]


def test_lab_is_converted(saved: Save, photographs: dict[str, Image.Image]) -> None:
    picture = photographs["chelsea"].resize((75, 50))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
    assert converted is not None
    data = saved(converted, "TIFF")
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "LAB"
    difference = np.asarray(decode(data), np.int16) - np.asarray(picture, np.int16)
    assert np.abs(difference).max() <= 4  # what 8-bit Lab cannot tell apart
