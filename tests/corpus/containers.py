"""How files are put together: animations, pages, scans, odd sizes, and bytes before and behind."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from tests.corpus.case import Array, Case, bad, good, saved, scene
from tests.corpus.encoders import (
    BLACK_IS_ZERO,
    EOI,
    GRAY,
    INDEXED,
    PNG_SIGNATURE,
    RGB,
    SOI,
    TRUECOLOUR,
    TRUECOLOUR_ALPHA,
    Component,
    Frame,
    chunk,
    gif,
    ihdr,
    jpeg,
    png,
    riff,
    scanlines,
    segment,
    segments,
    sos,
    sub_blocks,
    tiff,
    tiff_header,
    u24,
    vp8x,
    webp,
)
from tests.corpus.levels import colours

# One file of each format, and how far off it may be.
WAYS: dict[str, tuple[str, dict[str, Any], int]] = {
    "jpeg": ("JPEG", {"quality": 95, "subsampling": 0}, 8),
    "jpeg progressive": ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 8),
    "png": ("PNG", {}, 0),
    "webp lossless": ("WEBP", {"lossless": True}, 0),
    "webp lossy": ("WEBP", {"quality": 95}, 16),
    "gif": ("GIF", {}, 0),
    "bmp": ("BMP", {}, 0),
    "tiff": ("TIFF", {}, 0),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}, 0),
    "avif": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}, 8),
}


def written(name: str, image: Image.Image | None = None) -> bytes:
    """The scene, or ``image``, in one of the WAYS."""
    format, how, _ = WAYS[name]
    return saved(scene_of(name) if image is None else image, format, **how)


def scene_of(name: str) -> Image.Image:
    """The scene, in as many colours as the format has."""
    return scene().quantize(256) if name == "gif" else scene()


def cases() -> Iterator[Case]:
    yield from _surroundings()
    yield from _sizes()
    yield from _gif()
    yield from _webp()
    yield from _png()
    yield from _tiff()
    yield from _jpeg()
    yield from _arithmetic()


def _surroundings() -> Iterator[Case]:
    for name, (_, _, tolerance) in WAYS.items():
        data, expected = written(name), scene_of(name)
        yield good(f"{name} with bytes behind", data + b"\0behind\xff" * 99, expected, tolerance)
        yield bad(f"{name} with a byte before", b"\0" + data)
    for name in ("jpeg", "png", "gif"):
        yield bad(f"{name} after a line end", b"\r\n" + written(name))
    # A phone's motion photo: a film behind the JPEG, whose bytes spell scans by chance.
    film = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + riff(b"mdat", b"\xff\xda\x00\x0c\x37" * 200)
    yield good("jpeg motion photo", written("jpeg") + film, scene(), 8)
    comment = segment(0xFE, b"\xff\xda" * 200)
    data = written("jpeg")
    yield good("jpeg with scan markers in a comment", data[:2] + comment + data[2:], scene(), 8)
    archive = b"PK\3\4" + bytes(26) + b"PK\5\6" + bytes(18)
    yield good("png with a zip behind", written("png") + archive, scene())


def _sizes() -> Iterator[Case]:
    """Single pixels, single rows and columns, and the sizes that only one network can take."""
    for name, (_, _, tolerance) in WAYS.items():
        dot = Image.new("RGB", (1, 1), (200, 30, 90))
        # Lossy formats round one colour; chroma at its half size loses nothing here.
        yield good(f"{name} 1x1", written(name, dot), dot, min(tolerance, 8))
    for size in ((1, 1000), (1000, 1), (2, 65500), (65500, 2), (7, 240), (31, 16), (16, 31)):
        long = _long(*size)
        yield good(f"png {size[0]}x{size[1]}", saved(long, "PNG"), long)
    for size in ((1, 1000), (2, 65500), (65500, 2)):
        long = _long(*size)
        data = saved(long, "JPEG", quality=95, subsampling=0)
        yield good(f"jpeg {size[0]}x{size[1]}", data, long, 8)
    # The greatest sides of the formats (16383 for WebP, 65535 for GIF).
    for name, size in (("webp lossless", (16383, 1)), ("gif", (1, 65535))):
        flat = Image.new("RGB", size, (9, 99, 199))
        yield good(f"{name} {size[0]}x{size[1]}", written(name, flat), flat)
    flat = Image.new("L", (20000, 50), 99)
    yield good("png 20000x50", saved(flat, "PNG"), flat)
    # CycleGAN would make it 7936x256, the first beyond its limit.
    yield good("png 62x2", saved(_long(62, 2), "PNG"), _long(62, 2))


def _long(width: int, height: int) -> Image.Image:
    """A gray ramp along the longer side, so smooth that no codec misses it."""
    ramp = np.linspace(0, 255, max(width, height)).round().astype(np.uint8)
    rows = np.broadcast_to(ramp if width > height else ramp[:, None], (height, width))
    return Image.fromarray(np.ascontiguousarray(rows))


def _indices(height: int, width: int) -> Array:
    return np.random.default_rng(height).integers(0, 16, (height, width))


def _gif() -> Iterator[Case]:
    palette, other = colours(16), colours(32)
    table = palette.tobytes()
    full, small = _indices(24, 40), _indices(10, 12)
    plain = palette[full]
    yield good("gif one frame", gif(40, 24, [Frame(full)], table), plain)
    yield good("gif 87a", gif(40, 24, [Frame(full)], table, version=b"GIF87a"), plain)
    yield good("gif interlaced", gif(40, 24, [Frame(full, interlaced=True)], table), plain)
    own = Frame(full, palette=other[:16].tobytes())
    yield good("gif own palette", gif(40, 24, [own], table), other[full])
    yield good("gif own palette alone", gif(40, 24, [own]), other[full])
    clear = np.where((full == 3)[..., None], 255, plain)
    yield good("gif transparent", gif(40, 24, [Frame(full, clear=3)], table), clear)
    frames = [Frame(full), Frame(15 - full), Frame(full[::-1])]
    yield good("gif animation", gif(40, 24, frames, table), plain)
    loop = b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0"
    text = b"!\xfe" + sub_blocks(b"a comment " * 100) + b"\0"
    data = gif(40, 24, frames, table, extensions=loop + text)
    yield good("gif animation with extensions", data, plain)
    # What a first frame does not cover is clear in every browser, whatever the background colour.
    offset = np.full((24, 40, 3), 255, np.uint8)
    offset[5:15, 7:19] = palette[small]
    for background in (0, 7):
        data = gif(40, 24, [Frame(small, 7, 5), *frames], table, background=background)
        yield good(f"gif first frame inside, background {background}", data, offset)
    data = gif(40, 24, [Frame(small, 7, 5, clear=16 - 1)], table, background=15)
    yield good("gif first frame inside and transparent", data, np.where(
        np.pad(small == 15, ((5, 9), (7, 21)))[..., None], 255, offset))  # fmt: skip
    data = gif(40, 24, frames, table)
    yield good("gif without its last byte", data[:-1], plain)
    yield good("gif cut in its second frame", data[: len(data) // 2], plain)


def _webp() -> Iterator[Case]:
    """RFC 9649: what Pillow writes for one picture is a frame of a hand-made animation."""
    picture = scene()
    one = saved(picture, "WEBP", lossless=True)[12:]
    two = saved(picture.rotate(180), "WEBP", lossless=True)[12:]
    anim = riff(b"ANIM", b"\x11\x22\x33\xff" + bytes(2))

    def frame(body: bytes, left: int = 0, top: int = 0) -> bytes:
        """2.7.1.1: offsets are halved; 2 is "do not blend"."""
        size = u24(picture.width - 1) + u24(picture.height - 1)
        return riff(b"ANMF", u24(left // 2) + u24(top // 2) + size + u24(100) + b"\2" + body)

    yield good("webp animation", webp(vp8x(48, 32, 2), anim, frame(one), frame(two)), picture)
    inside = Image.new("RGB", (80, 60), "white")
    inside.paste(picture, (10, 6))
    data = webp(vp8x(80, 60, 18), anim, frame(one, 10, 6), frame(two))
    yield good("webp first frame inside", data, inside)
    yield good("webp extended", webp(vp8x(48, 32, 0), one), picture)
    odd = webp(vp8x(48, 32, 0), one, riff(b"ABCD", b"unknown"))
    yield good("webp unknown chunk", odd, picture)
    half = picture.copy()
    half.putalpha(Image.linear_gradient("L").resize(picture.size))
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=half.getchannel("A"))
    yield good("webp lossless alpha", saved(half, "WEBP", lossless=True, exact=True), white, 1)
    yield good("webp lossy alpha", saved(half, "WEBP", quality=95), white, 16)
    yield good("avif alpha", saved(half, "AVIF", quality=95, subsampling="4:4:4"), white, 8)
    frames = [picture, picture.rotate(180)]
    data = saved(picture, "AVIF", save_all=True, append_images=frames[1:], quality=95)
    yield good("avif animation", _undated(data), picture, 16)
    for sampling in ("4:2:0", "4:2:2", "4:0:0"):
        expected = picture.convert("L") if sampling == "4:0:0" else picture
        data = saved(picture, "AVIF", quality=95, subsampling=sampling)
        yield good(f"avif {sampling.replace(':', '')}", data, expected, 16)
    brand = saved(picture, "AVIF", quality=95, subsampling="4:4:4")
    yield good("avif that is mif1 first", brand[:8] + b"mif1" + brand[12:], picture, 8)


def _undated(data: bytes) -> bytes:
    """ISO 14496-12, 8.2.2: a film without the time of its making, so that it is always the same."""
    for name in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.index(name) + 8
        data = data[:at] + bytes(16) + data[at + 16 :]
    return data


def _png() -> Iterator[Case]:
    """PNG, third edition, 4.9: the first frame is IDAT's, unless IDAT is no frame at all."""
    picture = np.asarray(scene())
    other = zlib.compress(scanlines(picture[::-1], 8))

    def control(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">5I2H2B", number, 48, 32, 0, 0, 1, 10, 0, 0))

    animated = chunk(b"acTL", struct.pack(">II", 2, 0))
    second = control(1) + chunk(b"fdAT", struct.pack(">I", 2) + other)
    data = png(picture, 8, TRUECOLOUR, before=animated + control(0), after=second)
    yield good("png animation", data, picture)
    # The static image is what a reader that plays nothing shows.
    alone = chunk(b"acTL", struct.pack(">II", 1, 0))
    second = control(0) + chunk(b"fdAT", struct.pack(">I", 1) + other)
    yield good(
        "png static image apart", png(picture, 8, TRUECOLOUR, before=alone, after=second), picture
    )
    whole = zlib.compress(scanlines(picture, 8))
    pieces = b"".join(chunk(b"IDAT", whole[i : i + 1]) for i in range(len(whole)))
    start = PNG_SIGNATURE + ihdr(48, 32)
    yield good("png idat of single bytes", start + pieces + chunk(b"IEND"), picture)
    data = start + chunk(b"IDAT") + chunk(b"IDAT", whole) + chunk(b"IDAT") + chunk(b"IEND")
    yield good("png empty idats", data, picture)
    stored = chunk(b"IDAT", zlib.compress(scanlines(picture, 8), 0))
    yield good("png stored deflate", start + stored + chunk(b"IEND"), picture)
    for kind in range(1, 5):
        # Section 9: filters 1 to 4 of a flat picture are its first sample and then nothing.
        flat = np.zeros((4, 6, 1), np.uint8)
        rows = (bytes([kind]) + bytes(6)) * 4
        data = PNG_SIGNATURE + ihdr(6, 4, 8, GRAY) + chunk(b"IDAT", zlib.compress(rows))
        yield good(f"png filter {kind}", data + chunk(b"IEND"), flat[..., 0])
    yield good(
        "png private chunk", png(picture, 8, TRUECOLOUR, before=chunk(b"prVt", b"x" * 99)), picture
    )
    yield bad("png unknown critical chunk first", PNG_SIGNATURE + chunk(b"ABCD") + start[8:])
    yield bad("png palette missing", png(np.zeros((4, 4, 1), np.uint8), 8, INDEXED))
    yield bad("png colour type 5", png(picture, 8, 5))
    yield bad("png rgb of 4 bits", png(picture // 16, 4, TRUECOLOUR))
    yield bad("png 3 bits", png(np.zeros((4, 4, 1), np.uint8), 3, GRAY))
    yield bad("png alpha of 4 bits", png(np.zeros((4, 4, 4), np.uint8), 4, TRUECOLOUR_ALPHA))


def _tiff() -> Iterator[Case]:
    picture = scene()
    pages = [Image.new("RGB", (9, 5), colour) for colour in ("red", "blue")]
    data = saved(picture, "TIFF", save_all=True, append_images=pages)
    yield good("tiff pages", data, picture)
    yield good("tiff cut in its last page", data[:-30], picture)
    plain = np.asarray(picture)
    yield good("tiff second page outside", tiff(plain, RGB, following=2**31), picture)
    yield good("tiff page that follows itself", tiff(plain, RGB, following=8 + plain.size), picture)
    no_pixels = tiff_header(8) + b"\0\0" + bytes(4)
    yield bad("tiff without fields", no_pixels)
    gray = np.asarray(picture.convert("L"))[..., None]
    yield good("tiff unknown fields", tiff(gray, BLACK_IS_ZERO, fields={
        65000 + i: (4, [i]) for i in range(100)
    }), gray[..., 0])  # fmt: skip


def _jpeg() -> Iterator[Case]:
    picture = scene(64, 48)
    for sampling, name in ((0, "444"), (1, "422"), (2, "420")):
        for progressive in (False, True):
            data = saved(picture, "JPEG", quality=95, subsampling=sampling, progressive=progressive)
            ending = " progressive" if progressive else ""
            # Chroma at half its size loses what changes from one sample to the next.
            yield good(f"jpeg {name}{ending}", data, picture, 16 if sampling else 8)
    for how in ("restart_marker_blocks", "restart_marker_rows"):
        data = saved(picture, "JPEG", quality=95, subsampling=0, **{how: 1})
        yield good(f"jpeg {how.replace('_', ' ')}", data, picture, 8)
    gray = picture.convert("L")
    for progressive in (False, True):
        ending = " progressive" if progressive else ""
        data = saved(gray, "JPEG", quality=95, progressive=progressive)
        yield good(f"jpeg gray{ending}", data, gray, 8)
    pages = [Image.new("RGB", (9, 5), colour) for colour in ("red", "blue")]
    how95: dict[str, Any] = {"quality": 95, "subsampling": 0}
    yield good(
        "mpo", saved(picture, "MPO", save_all=True, append_images=pages, **how95), picture, 8
    )
    yield from _flat()
    data = saved(picture, "JPEG", progressive=True, **how95)
    parts = segments(data)
    first = next(i for i, part in enumerate(parts) if part[1] == 0xDA)
    # A first DC scan may be sent again: it says the same. 100 scans are the last that are taken.
    more = 100 - sum(part[1] == 0xDA for part in parts)
    again = parts[: first + 1] + [parts[first]] * more + parts[first + 1 :]
    yield good("jpeg of 100 scans", b"".join(again), picture, 8)
    filled = b"".join(b"\xff" * 9 + part for part in segments(saved(picture, "JPEG", **how95))[1:])
    yield good("jpeg fill bytes", SOI + filled, picture, 8)
    thumbnail = written("jpeg")
    data = saved(picture, "JPEG", exif=b"Exif\0\0" + thumbnail, **how95)
    yield good("jpeg thumbnail for exif", data, picture, 8)
    yield bad("jpeg two starts and an end", SOI + SOI + EOI)


def _flat() -> Iterator[Case]:
    """Sampling that Pillow does not write; chroma of one level, so that nothing is blurred."""
    luma = np.random.default_rng(7).integers(60, 200, (8, 8))
    for across, down in ((4, 1), (1, 2), (2, 2), (4, 2), (1, 4)):
        blocks = luma[: 8 // down * down, : 8 // across * across]
        blue, red = (np.full((8 // down, 8 // across), level) for level in (100, 150))
        data = jpeg(64, 64, [
            Component(blocks, across, down, 1), Component(blue, name=2), Component(red, name=3),
        ])  # fmt: skip
        large = np.kron(blocks, np.ones((8, 8), int))
        yield good(f"jpeg luma {across}x{down}", data, _rgb(large, 100, 150), 2)
    three = [Component(luma, name=1), *(Component(np.full((8, 8), 90), name=i) for i in (2, 3))]
    expected = _rgb(np.kron(luma, np.ones((8, 8), int)), 90, 90)
    data = jpeg(64, 64, three, interleaved=False)
    yield good("jpeg components in scans of their own", data, expected, 2)
    yield good("jpeg restart after every unit", jpeg(64, 64, three, restart=True), expected, 2)
    yield good("jpeg cut through blocks", jpeg(61, 58, three), expected[:58, :61], 2)


def _rgb(luma: Array, blue: int, red: int) -> Array:
    """JFIF 1.02: one level of chroma for the whole picture."""
    cb, cr = blue - 128, red - 128
    channels = [luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb]
    clipped: Array = np.clip(np.stack(channels, -1).round(), 0, 255)
    return clipped


def _arithmetic() -> Iterator[Case]:
    """T.81, annex D, by its shortest files.

    An arithmetic decoder that is fed zeros, which is what follows a marker (D.2.6), takes the
    likelier choice first and the other one next: no difference, end of the block. With a restart
    after every block, no coded byte at all is a whole picture of the middle gray.
    """
    tables = segment(0xDB, b"\0" + bytes([8] * 64))
    coded = b"".join(b"\xff" + bytes([0xD0 + i % 8]) for i in range(5))  # between six blocks
    for marker, name, spectrum in (
        (0xC9, "sequential", b"\0\x3f\0"),
        (0xCA, "progressive", b"\0\0\0"),
    ):
        frame = segment(marker, struct.pack(">BHHB", 8, 16, 24, 1) + b"\1\x11\0")
        data = SOI + tables + frame + segment(0xDD, b"\0\1") + sos([1], spectrum) + coded + EOI
        yield good(f"jpeg arithmetic {name}", data, np.full((16, 24), 128))
