"""Choose a picture's decoder, and refuse by its header what exceeds the limits.

The first bytes choose the decoder from an allow-list, never a name or a content type: no upload
reaches a decoder that we did not mean to offer (EPS would start Ghostscript).
"""

from __future__ import annotations

import re

from handlers.errors import BadImage, TooLarge, UnsupportedFormat
from handlers.pictures.limits import Limits

# (offset, first bytes, Pillow's name). JPEG covers MPO: naming MPO here makes Pillow fail.
_ALLOWED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
)

# Formats that clients send and we do not support, to name them in the error.
_REFUSED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"8BPS", "Photoshop"),
    (0, b"MM\0+", "big-endian BigTIFF"),  # Pillow opens only the little-endian ones
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
)

# ISO 14496-12: the first box of a file lists its formats (brands), the major one first.
_BRANDS = {
    "AVIF": {b"avif", b"avis"},
    "HEIC": {
        b"heic",
        b"heix",
        b"heim",
        b"heis",
        b"hevc",
        b"hevx",
        b"hevm",
        b"hevs",
        b"mif1",
        b"msf1",
    },
}
_HEIC_FIX = "; export it as JPEG (on iPhones: Settings, Camera, Formats, Most Compatible)"

SUPPORTED = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"

# The format is decided from this many bytes.
MAGIC_BYTES = 4096
_TEXT_MARKS = b"\xef\xbb\xbf \t\r\n\f\v"  # UTF-8's byte order mark, and white space

# ITU-T T.81, B.1.1: any marker except a stuffed byte and the restart markers.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# Table B.1: the markers of frame headers, one per coding process.
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def is_picture(data: bytes) -> bool:
    """Whether ``data`` starts like a picture, of a supported format or not."""
    try:
        return bool(format_of(data))
    except UnsupportedFormat:
        return True
    except BadImage:
        return False


def format_of(data: bytes) -> str:
    """Pillow's name of the decoder for ``data``.

    Raises UnsupportedFormat for a known format that is not supported, BadImage for other bytes.
    """
    for offset, magic, name in _ALLOWED:
        if data.startswith(magic, offset) and (name != "WEBP" or data.startswith(b"RIFF")):
            return name
    brands = _brands(data)
    if brands & _BRANDS["AVIF"]:
        return "AVIF"
    if brands & _BRANDS["HEIC"]:
        raise UnsupportedFormat(f"HEIC is not supported: send {SUPPORTED}{_HEIC_FIX}")
    for offset, magic, name in _REFUSED:
        if data.startswith(magic, offset):
            raise UnsupportedFormat(f"{name} is not supported: send {SUPPORTED}")
    if data[:256].lstrip(_TEXT_MARKS).startswith(b"<") and b"<svg" in data[:MAGIC_BYTES]:
        raise UnsupportedFormat(f"SVG is not supported: send {SUPPORTED}")
    raise BadImage(f"the bytes are no picture: send {SUPPORTED}")


def _brands(data: bytes) -> set[bytes]:
    """The brands of an ISO media file; empty for other bytes."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[i : i + 4] for i in (8, *range(16, end, 4))}


def check_header(data: bytes, name: str, limits: Limits) -> None:
    """Raise TooLarge or BadImage if the header of ``data``, of format ``name``, shows it."""
    if name == "JPEG":
        _check_jpeg(data, limits)
    if name == "WEBP":
        # Pillow allocates the canvas when it opens the file.
        _check_pixels(_webp_canvas(data), min(limits.pixels, limits.webp_pixels), "WebP")
    if name == "BMP" and _lacks_runs(data):
        raise BadImage("the BMP cannot be decoded: it is cut short")


def _lacks_runs(data: bytes) -> bool:
    """Whether a run-length encoded BMP has too few bytes for its pixels: a run has at most 255.

    Pillow would fill the rest in Python, with gigabytes if a run skips rows. The fields are those
    of BITMAPINFOHEADER, 40 bytes, and its successors: width, height, compression.
    """
    if int.from_bytes(data[14:18], "little") < 40:
        return False
    width, height = (int.from_bytes(data[i : i + 4], "little", signed=True) for i in (18, 22))
    is_packed = int.from_bytes(data[30:34], "little") in (1, 2)
    return is_packed and abs(width * height) > 255 * len(data)


def check_pixels(size: tuple[int, int], limits: Limits) -> None:
    """Raise TooLarge if (width, height) have more pixels than ``limits.pixels``."""
    _check_pixels(size, limits.pixels, "picture")


def _check_pixels(size: tuple[int, int], limit: int, what: str) -> None:
    width, height = size
    if width * height > limit:
        raise TooLarge(
            f"the {what} has {width}x{height} = {width * height} pixels; the limit is {limit}"
        )


def _check_jpeg(data: bytes, limits: Limits) -> None:
    """Raise TooLarge for more pixels, scans, or scans times pixels than ``limits`` allow.

    Embedded metadata and data after the picture (a motion photo's video) do not count.
    """
    scans = pixels = 0
    at = 2
    while match := _MARKER.search(data, at):
        code, at = data[match.end() - 1], match.end()
        if code == _END_OF_IMAGE:
            break
        if code in _START_OF_FRAME:
            # B.2.2: length, precision, height, width
            height, width = (int.from_bytes(data[i : i + 2], "big") for i in (at + 3, at + 5))
            check_pixels((width, height), limits)
            pixels = max(pixels, width * height)
        elif code == _START_OF_SCAN:
            scans += 1
            if scans > limits.jpeg_scans:
                raise TooLarge(f"the JPEG has more scans than the limit of {limits.jpeg_scans}")
            if scans * pixels > limits.jpeg_scan_pixels:
                raise TooLarge(
                    f"the JPEG has {scans} scans of {pixels} pixels; "
                    f"the limit is {limits.jpeg_scan_pixels} together"
                )
        at += int.from_bytes(data[at : at + 2], "big")


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """(width, height) from the first chunk of a WebP, RFC 9649; (0, 0) if it has none."""
    kind, payload = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        width, height = payload[4:7], payload[7:10]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(payload[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        bits = int.from_bytes(payload[6:10], "little")
        return bits & 0x3FFF, bits >> 16 & 0x3FFF
    return 0, 0
