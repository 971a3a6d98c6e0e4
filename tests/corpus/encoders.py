"""Writers of what Pillow cannot write, byte by byte: PNG, TIFF, BMP, GIF, JPEG, RIFF and ICC.

They write what they are told, sound or not: a size that lies is one argument away.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ImageCms

from tests.corpus.case import Array


def packed(samples: Array, bits: int) -> list[bytes]:
    """(rows, n) integers below ``2**bits`` -> bytes per row, the highest bit first."""
    shifts = np.arange(bits - 1, -1, -1)
    planes = (samples.astype(np.int64)[..., None] >> shifts) & 1
    rows = np.packbits(planes.reshape(len(samples), -1).astype(np.uint8), axis=1)
    return [row.tobytes() for row in rows]


# --- PNG, third edition (W3C, 2025) ---------------------------------------------------------------

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, TRUECOLOUR, INDEXED, GRAY_ALPHA, TRUECOLOUR_ALPHA = 0, 2, 3, 4, 6

# 8.1: first row, first column, row step and column step of Adam7's passes.
_ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """Section 5.3: length, name, data and their checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def ihdr(width: int, height: int, bits: int = 8, kind: int = TRUECOLOUR, adam7: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, adam7))


def scanlines(samples: Array, bits: int, adam7: bool = False) -> bytes:
    """(H, W, C) -> the bytes that IDAT compresses, every row with filter 0."""
    passes = _ADAM7 if adam7 else ((0, 0, 1, 1),)
    parts = [samples[top::down, left::right] for top, left, down, right in passes]
    return b"".join(
        b"\0" + row
        for part in parts
        if part.size
        for row in packed(part.reshape(len(part), -1), bits)
    )


def png(
    samples: Array,
    bits: int,
    kind: int,
    *,
    before: bytes = b"",
    after: bytes = b"",
    adam7: bool = False,
) -> bytes:
    """(H, W, C) samples as a PNG, with chunks ``before`` and ``after`` its IDAT."""
    height, width = samples.shape[:2]
    idat = chunk(b"IDAT", zlib.compress(scanlines(samples, bits, adam7)))
    return (
        PNG_SIGNATURE
        + ihdr(width, height, bits, kind, adam7)
        + before
        + idat
        + after
        + chunk(b"IEND")
    )


# --- TIFF 6.0, and BigTIFF as libtiff writes it ---------------------------------------------------

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
_CODES = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", UNDEFINED: "B", LONG8: "Q"}

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = (
    317,
    320,
    322,
    323,
    324,
    325,
)
EXTRA_SAMPLES, SAMPLE_FORMAT = 338, 339

# Values of PhotometricInterpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, INK, YCBCR = 0, 1, 2, 3, 5, 6

# A type and its values; None takes the field out.
Field = tuple[int, Sequence[int]] | None


def directory(
    fields: Mapping[int, Field], at: int, order: str = "<", big: bool = False, following: int = 0
) -> bytes:
    """An IFD that will lie at the offset ``at``, with its long values behind it."""
    count, offset = ("Q", "Q") if big else ("H", "I")
    room = struct.calcsize(offset)
    entries = [(tag, *field) for tag, field in sorted(fields.items()) if field is not None]
    spare = at + struct.calcsize(order + count) + len(entries) * (4 + 2 * room) + room
    table, values = struct.pack(order + count, len(entries)), b""
    for tag, kind, numbers in entries:
        value = struct.pack(f"{order}{len(numbers)}{_CODES[kind]}", *numbers)
        if len(value) > room:
            value, values = struct.pack(order + offset, spare + len(values)), values + value
        table += struct.pack(f"{order}HH{offset}", tag, kind, len(numbers)) + value.ljust(
            room, b"\0"
        )
    return table + struct.pack(order + offset, following) + values


def tiff_header(first: int, order: str = "<", big: bool = False) -> bytes:
    """The first bytes of a TIFF whose first IFD lies at the offset ``first``."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), first
    )


def tiff(
    samples: Array,
    photometric: int,
    *,
    bits: int = 0,
    order: str = "<",
    big: bool = False,
    planar: bool = False,
    strips: int = 1,
    fields: Mapping[int, Field] | None = None,
    data: bytes | None = None,
    following: int = 0,
) -> bytes:
    """(H, W, C) samples as an uncompressed TIFF; their type says how they are stored.

    ``bits`` packs integers below a byte's boundary; ``fields`` override and add; ``data`` replaces
    the stored bytes; ``strips`` divides the rows; ``following`` is where the next IFD claims to be.
    """
    height, width, channels = samples.shape
    planes = [samples[..., i : i + 1] for i in range(channels)] if planar else [samples]
    stored = [_stored(part, bits, order) for plane in planes for part in np.split(plane, strips)]
    if data is not None:
        stored = [data]
    start = 16 if big else 8
    offsets = [start + sum(map(len, stored[:i])) for i in range(len(stored))]
    body = b"".join(stored)
    body += bytes(len(body) % 2)  # an IFD begins on a word boundary
    every: dict[int, Field] = {
        WIDTH: (LONG, [width]),
        HEIGHT: (LONG, [height]),
        BITS: (SHORT, [bits or samples.itemsize * 8] * channels),
        COMPRESSION: (SHORT, [1]),
        PHOTOMETRIC: (SHORT, [photometric]),
        STRIP_OFFSETS: (LONG, offsets),
        SAMPLES: (SHORT, [channels]),
        ROWS: (LONG, [height // strips]),
        STRIP_BYTES: (LONG, [len(part) for part in stored]),
        PLANAR: (SHORT, [2 if planar else 1]),
        SAMPLE_FORMAT: (SHORT, [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * channels),
        **(fields or {}),
    }
    at = start + len(body)
    return tiff_header(at, order, big) + body + directory(every, at, order, big, following)


def _stored(samples: Array, bits: int, order: str) -> bytes:
    if bits:
        return b"".join(packed(samples.reshape(len(samples), -1), bits))
    return samples.astype(samples.dtype.newbyteorder("<" if order == "<" else ">")).tobytes()


# --- BMP: BITMAPCOREHEADER (12), BITMAPINFOHEADER (40), OS/2 2 (64), V4 (108), V5 (124) -----------


def bmp(
    width: int,
    height: int,
    bits: int,
    data: bytes,
    *,
    palette: bytes = b"",
    header: int = 40,
    compression: int = 0,
    masks: Sequence[int] = (),
    colors: int = 0,
) -> bytes:
    """``data`` as a BMP; a negative height stores the top row first."""
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII", header, width, height, 1, bits, compression, len(data), 0, 0, colors, 0
        )
        masked = struct.pack(f"<{len(masks)}I", *masks)
        # The masks follow the smallest header and lie inside the greater ones.
        info = info + masked if header == 40 else (info + masked).ljust(header, b"\0")
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


def bmp_rows(samples: Array, bits: int) -> bytes:
    """(rows, n) samples, bottom row last as given -> bytes, each row a multiple of four."""
    return b"".join(row + bytes(-len(row) % 4) for row in packed(samples, bits))


# --- GIF 89a --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """Indices (H, W) into ``palette``, or the file's where there is none, at a place."""

    indices: Array
    left: int = 0
    top: int = 0
    palette: bytes = b""
    clear: int | None = None
    interlaced: bool = False

    def blocks(self) -> bytes:
        """A Graphic Control Extension (section 23), an Image Descriptor (20) and its data (22)."""
        height, width = self.indices.shape
        control = b"!\xf9\x04" + struct.pack("<BHBx", self.clear is not None, 10, self.clear or 0)
        flags = (0x80 | _exponent(self.palette) if self.palette else 0) | 0x40 * self.interlaced
        place = b"," + struct.pack("<HHHHB", self.left, self.top, width, height, flags)
        rows = self.indices
        if self.interlaced:  # appendix E
            rows = np.concatenate([rows[0::8], rows[4::8], rows[2::4], rows[1::2]])
        return control + place + self.palette + b"\x08" + sub_blocks(_lzw(rows.ravel())) + b"\0"


def gif(
    width: int,
    height: int,
    frames: Iterable[Frame],
    palette: bytes = b"",
    *,
    background: int = 0,
    extensions: bytes = b"",
    version: bytes = b"GIF89a",
) -> bytes:
    flags = 0x80 | _exponent(palette) if palette else 0
    screen = struct.pack("<HHBBB", width, height, flags, background, 0)
    images = b"".join(frame.blocks() for frame in frames)
    return version + screen + palette + extensions + images + b";"


def sub_blocks(data: bytes) -> bytes:
    """Section 15: at most 255 bytes each, without the terminator."""
    parts = (data[i : i + 255] for i in range(0, len(data), 255))
    return b"".join(bytes([len(part)]) + part for part in parts)


def _exponent(palette: bytes) -> int:
    return (len(palette) // 3).bit_length() - 2


def _lzw(indices: Array) -> bytes:
    """Appendix F without compression: the table is cleared before codes outgrow nine bits."""
    parts = [indices[i : i + 250] for i in range(0, indices.size, 250)]
    codes = np.concatenate([np.append(256, part) for part in parts] + [np.array([257])])
    bits = (codes.astype(np.int64)[:, None] >> np.arange(9)) & 1
    return np.packbits(bits.ravel().astype(np.uint8), bitorder="little").tobytes()


# --- JPEG, ITU-T T.81 -----------------------------------------------------------------------------

SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def segment(marker: int, data: bytes) -> bytes:
    """B.1.1.4: a marker with its length."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


@dataclass(frozen=True)
class Component:
    """One 8-bit level for each 8x8 block, and the sampling factors (B.2.2)."""

    blocks: Array
    across: int = 1
    down: int = 1
    name: int = 1


def jpeg(
    width: int,
    height: int,
    components: Sequence[Component],
    *,
    before: bytes = b"",
    restart: bool = False,
    interleaved: bool = True,
    after_scan: bytes = b"",
) -> bytes:
    """A baseline JPEG of flat blocks, which every decoder gives back exactly.

    Its quantiser of 8 makes a DC coefficient (A.3.3) its block's level less 128; AC has one code,
    the end of a block. Every component's blocks must fill whole MCUs.
    """
    tables = segment(0xDB, b"\0" + bytes([8] * 64))
    frame = struct.pack(">BHHB", 8, height, width, len(components))
    for part in components:
        frame += bytes([part.name, part.across << 4 | part.down, 0])
    # F.1.2: ten categories of four bits, and one AC symbol of one bit.
    huffman = b"\0" + bytes([0, 0, 0, 10]) + bytes(12) + bytes(range(10))
    huffman += b"\x10" + bytes([1]) + bytes(15) + b"\0"
    tables += segment(0xC0, frame) + segment(0xC4, huffman)
    if restart:
        tables += segment(0xDD, b"\0\x01")
    groups = [components] if interleaved else [[part] for part in components]
    scans = b"".join(
        sos([part.name for part in group]) + _coded(group, restart) for group in groups
    )
    return SOI + before + tables + scans + after_scan + EOI


def sos(names: Sequence[int], spectrum: bytes = b"\0\x3f\0") -> bytes:
    """B.2.3: a scan's header."""
    listed = b"".join(bytes([name, 0]) for name in names)
    return segment(0xDA, bytes([len(names)]) + listed + spectrum)


def _coded(components: Sequence[Component], restart: bool) -> bytes:
    """A.2.3 and F.1.2.1: the blocks in MCU order, each by its difference to the one before."""
    alone = len(components) == 1
    steps = [(1, 1) if alone else (part.down, part.across) for part in components]
    first, (down, across) = components[0].blocks, steps[0]
    rows, columns = first.shape[0] // down, first.shape[1] // across
    last = [128] * len(components)
    out, bits = b"", ""
    for number in range(rows * columns):
        y, x = divmod(number, columns)
        if restart and number:
            out, bits = out + _stuffed(bits) + bytes([0xFF, 0xD0 + (number - 1) % 8]), ""
            last = [128] * len(components)
        for i, (part, (high, wide)) in enumerate(zip(components, steps, strict=True)):
            tile = part.blocks[y * high : (y + 1) * high, x * wide : (x + 1) * wide]
            for level in tile.ravel().tolist():
                difference, last[i] = level - last[i], level
                size = abs(difference).bit_length()
                value = difference if difference > 0 else difference + 2**size - 1
                bits += f"{size:04b}" + (f"{value:0{size}b}" if size else "") + "0"
    return out + _stuffed(bits)


def _stuffed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def segments(data: bytes) -> list[bytes]:
    """A JPEG cut before every marker; entropy-coded bytes stay with the scan they follow."""
    parts, at = [data[:2]], 2
    while data[at : at + 2] != EOI:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDA:
            while data[end] != 0xFF or data[end + 1] in (0, *range(0xD0, 0xD8)):
                end += 1
        parts.append(data[at:end])
        at = end
    return [*parts, data[at:]]


# --- RIFF, for WebP (RFC 9649) --------------------------------------------------------------------


def riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def webp(*chunks: bytes) -> bytes:
    return riff(b"RIFF", b"WEBP" + b"".join(chunks))


def u24(value: int) -> bytes:
    return value.to_bytes(3, "little")


def vp8x(width: int, height: int, flags: int) -> bytes:
    """Section 2.7: the canvas. Flags: 2 animation, 4 XMP, 8 EXIF, 16 alpha, 32 ICC."""
    return riff(b"VP8X", bytes([flags, 0, 0, 0]) + u24(width - 1) + u24(height - 1))


# --- ICC.1:2001-04 profiles -----------------------------------------------------------------------

_NOW = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SRGB = _NOW[:24] + bytes(12) + _NOW[36:]  # without the time of its making (6.1.6)

# D50 in 1/65536, the white of every profile's connection space.
_D50 = struct.pack(">3i", 63190, 65536, 54061)


def swapped_profile() -> bytes:
    """sRGB with its red and green primaries swapped: (r, g, b) means sRGB's (g, r, b)."""
    return SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def gray_profile(gamma: float) -> bytes:
    """A grayscale input profile (6.3.2) of one curve."""
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"gray\0" + bytes(79),
        b"wtpt": b"XYZ \0\0\0\0" + _D50,
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256)),
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    header = struct.pack(">I4xI", 128 + len(table) + len(body), 0x02400000)
    header += b"mntrGRAYXYZ " + bytes(12) + b"acsp"
    return (header.ljust(68, b"\0") + _D50).ljust(128, b"\0") + table + body


# --- EXIF 2.32 ------------------------------------------------------------------------------------


def exif(orientation: int, kind: int = SHORT, order: str = "<") -> bytes:
    """EXIF data of one entry, as an APP1 segment holds it."""
    return (
        b"Exif\0\0"
        + tiff_header(8, order)
        + directory({ORIENTATION: (kind, [orientation])}, 8, order)
    )
