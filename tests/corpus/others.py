"""Cut files, surrounding bytes and sizes, in every format; and files that are not served."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from tests.corpus.case import WAYS, Case, bad, good, group, refused, saved, scene, scene_of, written
from tests.corpus.jpeg import SOI
from tests.corpus.png import SIGNATURE


def cases() -> Iterator[Case]:
    yield Case("nothing", b"", 400, "EmptyBody")
    for name, (_, _, tolerance) in WAYS.items():
        yield from _surrounded(name, tolerance)
        yield from _cut(name)
    yield from _sizes()
    yield from _refused()
    yield from _no_pictures()
    yield from _magic()


def _surrounded(name: str, tolerance: int) -> Iterator[Case]:
    data = written(name)
    behind = data + b"\0behind\xff\xda\0\2" * 199  # more scans than a JPEG may have
    yield good(f"{name} with bytes behind", behind, scene_of(name), tolerance)
    yield bad(f"{name} with a byte before", b"\0" + data)
    dot = Image.new("RGB", (1, 1), (200, 30, 90))
    # Lossy formats round one colour; chroma at its half size loses nothing here.
    yield good(f"{name} 1x1", written(name, dot), dot, min(tolerance, 8))


def _cut(name: str) -> Iterator[Case]:
    data = written(name)
    yield from group(bad, name, {
        "cut at 50%": data[: len(data) // 2],
        "cut at 95%": data[: len(data) * 95 // 100],
        # Enough to lose samples of the last rows, whatever the format has behind them.
        "without its last 30 bytes": data[:-30],
        "of 12 bytes and noise": data[:12] + np.random.default_rng(len(data)).bytes(500),
        "of 12 bytes": data[:12],
    })  # fmt: skip


def _sizes() -> Iterator[Case]:
    """Single rows and columns, and sizes that only one network can take."""
    # CycleGAN would resize 62x2 to 7936x256, the first beyond its limit.
    for width, height in (
        (1, 1000), (1000, 1), (2, 65500), (65500, 2), (7, 240), (31, 16), (16, 31), (62, 2)
    ):  # fmt: skip
        long = _ramp(width, height)
        yield good(f"png {width}x{height}", saved(long, "PNG"), long)
        if max(width, height) >= 1000 and height > 1:
            yield good(f"jpeg {width}x{height}", written("jpeg", long), long, 8)
    # The largest sides of the formats (16383 for WebP, 65535 for GIF).
    for name, size in (("webp lossless", (16383, 1)), ("gif", (1, 65535)), ("png", (20000, 50))):
        flat = Image.new("L" if name == "png" else "RGB", size, "teal")
        yield good(f"{name} {size[0]}x{size[1]}", written(name, flat), flat)


def _ramp(width: int, height: int) -> Image.Image:
    """Gray levels along the longer side, so smooth that every codec keeps them."""
    ramp = np.linspace(0, 255, max(width, height)).round().astype(np.uint8)
    rows = np.broadcast_to(ramp if width > height else ramp[:, None], (height, width))
    return Image.fromarray(np.ascontiguousarray(rows))


def _refused() -> Iterator[Case]:
    """Formats that people send and that are not served: refused by name."""
    box = scene()
    heif = b"\0\0\0\x18ftyp%b\0\0\0\0mif1heic" + bytes(100)
    fix = r"; export it as JPEG \(on iPhones: .*Most Compatible\)"
    for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        case = refused(f"heif of brand {brand.decode()}", heif % brand, "HEIC")
        yield replace(case, message=case.message + fix)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    for format, files in {
        "PDF": {"pdf": saved(box, "PDF", creationDate=time.gmtime(0), modDate=time.gmtime(0))},
        "SVG": {
            "svg": svg,
            "svg with a declaration": b'<?xml version="1.0"?>' + svg,
            "svg behind spaces": b" \r\n\t" + svg,
            "svg behind a byte order mark": b"\xef\xbb\xbf" + svg,
            "svg behind a mark and a declaration": b'\xef\xbb\xbf<?xml version="1.0"?>' + svg,
            "svg behind a comment": b"<!-- by hand -->\n" + svg,
            "svg behind a doctype": b"<!DOCTYPE svg>\n" + svg,
        },
        "ICO": {"ico": saved(box, "ICO")},
        "JPEG 2000": {
            "jpeg 2000": saved(box, "JPEG2000"),
            "jpeg 2000 codestream": b"\xff\x4f\xff\x51" + bytes(99),
        },
        "JPEG XL": {
            "jpeg xl codestream": b"\xff\x0a" + bytes(99),
            "jpeg xl": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99),
        },
        "Photoshop": {"photoshop": b"8BPS\0\1" + bytes(99)},
        "PostScript": {
            "eps": saved(box, "EPS"),
            "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
            "dos eps": b"\xc5\xd0\xd3\xc6" + bytes(99),
        },
    }.items():
        for name, data in files.items():
            yield refused(name, data, format)


def _no_pictures() -> Iterator[Case]:
    """Rarer formats, and files that are no pictures."""
    box = scene()
    for format in ("PPM", "TGA", "ICNS", "PCX", "SGI", "QOI", "DDS", "DIB"):
        yield bad(format.lower(), saved(box.convert("RGBA") if format == "ICNS" else box, format))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("picture.png"), written("png"))
    for name, data in {
        "zip": buffer.getvalue(),
        "gzip": b"\x1f\x8b\x08" + bytes(99),
        "elf": b"\x7fELF\2\1\1" + bytes(99),
        "windows program": b"MZ" + bytes(99),
        "html": b"<!DOCTYPE html><html><img src=x></html>",
        "text": "no picture, à peine un mot".encode(),
        "utf-16 text": "no picture".encode("utf-16"),
        "base64 of a png": b"iVBORw0KGgoAAAANSUhEUg",
        "data url": b"data:image/png;base64,iVBORw0KGgo=",
        "one zero": b"\0",
        "one byte of ff": b"\xff",
        "zeros": bytes(1000),
        "noise": np.random.default_rng(9).bytes(1000),
        "windows metafile": b"\xd7\xcd\xc6\x9a" + bytes(99),
        "enhanced metafile": b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(99),
        "mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(99),
        "fits": b"SIMPLE  =                    T" + b" " * 50,
        "python pickle": b"\x80\4\x95\0\0\0\0\0\0\0\0.",
    }.items():
        yield bad(name, data)


def _magic() -> Iterator[Case]:
    """First bytes that belong to another file, to none, or to a text."""
    for name in ("jpeg", "png", "gif"):
        yield bad(f"{name} after a line end", b"\r\n" + written(name))
    archive = b"PK\3\4" + bytes(26) + b"PK\5\6" + bytes(18)
    yield good("png with a zip behind", written("png") + archive, scene())
    # A sound PCX whose bounding box spells AVIF's first bytes must not reach the PCX decoder.
    pcx = saved(Image.new("L", (508, 753), 99), "PCX")
    yield bad("magic: pcx with avif's first bytes", pcx[:4] + b"ftypavis" + pcx[12:], "AVIF")
    yield from group(bad, "magic:", {
        "png with jpeg's first bytes": SOI + b"\xff" + written("png"),
        "jpeg with png's first bytes": SIGNATURE + written("jpeg"),
        "png through a text transfer": written("png").replace(b"\r\n", b"\n"),
        "png of 7 bits": SIGNATURE.replace(b"\x89", b"\x09") + written("png")[8:],
        "gif 88a": b"GIF88a" + written("gif")[6:],
        "text of a gif": b"GIF89a is a picture format of 1989.",
        "text of a bmp": b"BMW builds cars. " * 20,
        "text of a tiff": b"II*\0and nothing else, or nearly.",
        "riff of sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
        "riff of the other endian": b"RIFX" + written("webp lossless")[4:],
        "jpeg first bytes alone": SOI + b"\xff",
        "tiff first bytes alone": b"II*\0",
        "bmp first bytes alone": b"BM",
        "png first bytes alone": SIGNATURE,
        "gif first bytes alone": b"GIF89a",
        "webp first bytes alone": b"RIFF\0\0\0\0WEBP",
        "avif first bytes alone": b"\0\0\0\x14ftypavif\0\0\0\0avif",
    })  # fmt: skip
