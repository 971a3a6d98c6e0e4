"""What is no picture that is served: other formats, other files, and first bytes that mislead."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator

import numpy as np

from tests.corpus.case import Case, bad, refused, saved, scene
from tests.corpus.containers import written
from tests.corpus.encoders import (
    PNG_SIGNATURE,
    SOI,
)


def cases() -> Iterator[Case]:
    yield from _others()
    yield from _magic()


def _others() -> Iterator[Case]:
    """Formats that are not served: by name where people send them, else as no picture at all."""
    box = scene()
    for name, format in (("ico", "ICO"), ("eps", "EPS"), ("jpeg 2000", "JPEG2000")):
        yield refused(name, saved(box, format))
    heif = b"\0\0\0\x18ftyp%b\0\0\0\0mif1heic" + bytes(100)
    for brand in (b"heic", b"heix", b"hevc", b"mif1"):
        yield refused(f"heif of brand {brand.decode()}", heif % brand)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    for name, data in {
        "pdf": saved(box, "PDF", creationDate=time.gmtime(0), modDate=time.gmtime(0)),
        "svg": svg,
        "svg with a declaration": b'<?xml version="1.0"?>' + svg,
        "svg behind spaces": b" \r\n\t" + svg,
        "svg behind a byte order mark": b"\xef\xbb\xbf" + svg,
        "svg behind a mark and a declaration": b'\xef\xbb\xbf<?xml version="1.0"?>' + svg,
        "svg behind a comment": b"<!-- by hand -->\n" + svg,
        "svg behind a doctype": b"<!DOCTYPE svg>\n" + svg,
        "jpeg 2000 codestream": b"\xff\x4f\xff\x51" + bytes(99),
        "jpeg xl codestream": b"\xff\x0a" + bytes(99),
        "jpeg xl": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99),
        "photoshop": b"8BPS\0\1" + bytes(99),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
        "dos eps": b"\xc5\xd0\xd3\xc6" + bytes(99),
    }.items():
        yield refused(name, data)
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
    signature = PNG_SIGNATURE
    for name, data in {
        "png with jpeg's first bytes": SOI + b"\xff" + written("png"),
        "jpeg with png's first bytes": signature + written("jpeg"),
        "png through a text transfer": written("png").replace(b"\r\n", b"\n"),
        "png of 7 bits": signature.replace(b"\x89", b"\x09") + written("png")[8:],
        "gif 88a": b"GIF88a" + written("gif")[6:],
        "text of a gif": b"GIF89a is a picture format of 1989.",
        "text of a bmp": b"BMW builds cars. " * 20,
        "text of a tiff": b"II*\0and nothing else, or nearly.",
        "riff of sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
        "riff of the other endian": b"RIFX" + written("webp lossless")[4:],
        "jpeg first bytes alone": SOI + b"\xff",
        "tiff first bytes alone": b"II*\0",
        "bmp first bytes alone": b"BM",
        "png first bytes alone": signature,
        "gif first bytes alone": b"GIF89a",
        "webp first bytes alone": b"RIFF\0\0\0\0WEBP",
        "avif first bytes alone": b"\0\0\0\x14ftypavif\0\0\0\0avif",
    }.items():
        yield bad(f"magic: {name}", data)
