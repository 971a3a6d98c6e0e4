"""The supported picture formats, detected by their first bytes.

Only the first bytes select a decoder, from an allow-list; file names and content types are ignored.
So no upload reaches a decoder that is not meant to be exposed (Pillow's EPS starts Ghostscript).
"""

from __future__ import annotations

from handlers.errors import BadImage, UnsupportedFormat

# (offset, first bytes, name in Pillow). JPEG includes MPO, which Pillow cannot open by that name.
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

# Unsupported formats that clients send; the error names them.
_REFUSED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"8BPS", "Photoshop"),
    (0, b"MM\0+", "big-endian BigTIFF"),  # Pillow opens little-endian BigTIFF only
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

# Detection needs at most this many bytes.
MAGIC_BYTES = 4096
_TEXT_MARKS = b"\xef\xbb\xbf \t\r\n\f\v"  # UTF-8 byte order mark and white space


def is_picture(data: bytes) -> bool:
    """Whether ``data`` starts like a picture, even one in an unsupported format."""
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
    raise BadImage(f"the bytes are not a picture: send {SUPPORTED}")


def _brands(data: bytes) -> set[bytes]:
    """The brands of an ISO media file; empty for other bytes."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[i : i + 4] for i in (8, *range(16, end, 4))}
