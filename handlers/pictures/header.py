"""Checks the limits in a picture's header before Pillow opens the file."""

from __future__ import annotations

import re

from handlers.errors import BadImage, TooLarge
from handlers.pictures.limits import Limits

# ITU-T T.81, B.1.1: any marker except a stuffed byte and the restart markers.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# Table B.1: the markers of frame headers, one per coding process.
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def check_header(data: bytes, name: str, limits: Limits) -> None:
    """Raise TooLarge or BadImage if the header shows that ``data`` is too large or truncated.

    ``name`` is the format. Other formats than JPEG, WebP and BMP are not checked here.
    """
    if name == "JPEG":
        _check_jpeg(data, limits)
    if name == "WEBP":
        # Pillow allocates the canvas when it opens the file.
        _check_pixels(_webp_canvas(data), min(limits.pixels, limits.webp_pixels), "WebP")
    if name == "BMP" and _lacks_runs(data):
        raise BadImage("the BMP cannot be decoded: it is truncated")


def _lacks_runs(data: bytes) -> bool:
    """Whether a run-length encoded BMP is too short for its pixels; a run has at most 255.

    Pillow would fill the rest in Python, and take gigabytes if a run skips rows. The fields (width,
    height, compression) are those of BITMAPINFOHEADER, which has 40 bytes, and its successors.
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
    """Raise TooLarge for more pixels, scans, or scans times pixels than ``limits`` allows.

    Ignores embedded metadata (thumbnails) and data after the picture (a motion photo's video).
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
