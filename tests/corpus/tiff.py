"""TIFF: every kind of sample in both byte orders, every layout, damage, claims and bombs.

tifffile writes the files; ``fields`` changes their directories. Sections and pages are TIFF 6.0's.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms

from tests.corpus.case import (
    Array,
    Case,
    H,
    W,
    bad,
    colours,
    good,
    group,
    on_white,
    packed,
    refused,
    samples,
    saved,
    scene,
    shown,
    too_large,
)

ASCII, SHORT, LONG, UNDEFINED, LONG8 = 2, 3, 4, 7, 16
_CODES = {ASCII: "B", SHORT: "H", LONG: "I", UNDEFINED: "B", LONG8: "Q"}

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES, COLOR_MAP = 273, 274, 277, 278, 279, 320
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES, PROFILE = 322, 323, 324, 325, 34675

# Values of PhotometricInterpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, INK, YCBCR = 0, 1, 2, 3, 5, 6

# A type and its values; None removes the field.
Field = tuple[int, Sequence[int]] | None


def directory(
    fields: Mapping[int, Field], at: int, order: str = "<", big: bool = False, following: int = 0
) -> bytes:
    """An IFD for the offset ``at``, with its long values behind it."""
    count, offset = ("Q", "Q") if big else ("H", "I")
    room = struct.calcsize(offset)
    entries = [(tag, *field) for tag, field in sorted(fields.items()) if field is not None]
    spare = at + struct.calcsize(order + count) + len(entries) * (4 + 2 * room) + room
    table, values = struct.pack(order + count, len(entries)), b""
    for tag, kind, numbers in entries:
        value = struct.pack(f"{order}{len(numbers)}{_CODES[kind]}", *numbers)
        if len(value) > room:
            value, values = struct.pack(order + offset, spare + len(values)), values + value
        entry = struct.pack(f"{order}HH{offset}", tag, kind, len(numbers))
        table += entry + value.ljust(room, b"\0")
    return table + struct.pack(order + offset, following) + values


def header(first: int, order: str = "<", big: bool = False) -> bytes:
    """The start of a TIFF whose first IFD is at the offset ``first``."""
    mark = b"II" if order == "<" else b"MM"
    version = (
        struct.pack(order + "HHHQ", 43, 8, 0, first)
        if big
        else struct.pack(order + "HI", 42, first)
    )
    return mark + version


def tiff(
    values: Array,
    photometric: int = BLACK_IS_ZERO,
    fields: Mapping[int, Field] | None = None,
    following: int = 0,
    **options: Any,
) -> bytes:
    """(H, W[, C]) samples as tifffile writes them with ``options``.

    ``fields`` replaces, adds and removes entries in a copy of the directory, at the end of the
    file; ``following`` is the offset of the next directory.
    """
    buffer = io.BytesIO()
    options = {"metadata": None, "software": False, **options}
    tifffile.imwrite(buffer, values, photometric=photometric, **options)
    data = buffer.getvalue()
    if fields is None and not following:
        return data
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        order, big, tags = file.byteorder, file.is_bigtiff, file.pages.first.tags
        own = {
            t.code: (int(t.dtype), np.ravel(t.value).tolist()) for t in tags if t.dtype in _CODES
        }
    end = len(data)
    start = header(end, order, big)
    copy = directory({**own, **(fields or {})}, end, order, big, following)
    return start + data[len(start) :] + copy


def gray_tiff(
    values: Array, photometric: int, bits: int, order: str = "<", colors: Sequence[int] = ()
) -> bytes:
    """(H, W) samples of ``bits``, which tifffile cannot pack by itself if they are no bytes."""
    if bits in (8, 16) and not colors:
        return tiff(values, photometric, byteorder=order)
    lines = np.stack([np.frombuffer(line, np.uint8) for line in packed(values, bits)])
    fields: dict[int, Field] = {WIDTH: (LONG, [values.shape[1]]), BITS: (SHORT, [bits])}
    fields |= {PHOTOMETRIC: (SHORT, [photometric]), COLOR_MAP: (SHORT, colors) if colors else None}
    return tiff(lines, fields=fields, byteorder=order)


# Valid, but so rare that Pillow cannot read them, or reads them wrongly.
_RARE = {
    "tiff gray alpha 16 bit ii", "tiff gray alpha 16 bit mm", "tiff white is zero 16 bit mm",
    "tiff planes apart 16 bit", "tiff uint32 ii", "tiff uint32 mm",
}  # fmt: skip


def cases() -> Iterator[Case]:
    for case in _all():
        yield bad(case.name, case.data) if case.name in _RARE else case


def _all() -> Iterator[Case]:
    for order, mark in (("<", "ii"), (">", "mm")):
        yield from _gray(order, mark)
        yield from _colour(order, mark)
    yield from _other_samples()
    yield from _layouts()
    yield from _compressed()
    yield from _pages()
    yield from _damaged()
    yield from _claims()
    yield from _crowds()


def _ramp() -> Array:
    return np.linspace(0, 1, H * W, dtype=np.float32).reshape(H, W)


def _gray(order: str, mark: str) -> Iterator[Case]:
    for bits in (1, 2, 4, 8, 16):
        gray = samples(1, bits)
        for photometric, name in ((BLACK_IS_ZERO, "gray"), (WHITE_IS_ZERO, "white is zero")):
            data = gray_tiff(gray, photometric, bits, order)
            levels = shown(gray, bits) if photometric else 255 - shown(gray, bits)
            yield good(f"tiff {name} {bits} bit {mark}", data, levels)
    for bits in (8, 16):
        pair = samples(2, bits)
        data = tiff(pair, byteorder=order, planarconfig="contig", extrasamples=[2])
        yield good(f"tiff gray alpha {bits} bit {mark}", data, on_white(pair, bits), 1 + bits // 16)
    ramp = _ramp()
    rounded = np.round(ramp * 255)
    yield good(f"tiff float32 {mark}", tiff(ramp, byteorder=order), rounded)
    dim, wide = tiff(ramp / 4, byteorder=order), tiff(ramp * 400 - 100, byteorder=order)
    yield good(f"tiff float32 below a quarter {mark}", dim, np.round(ramp / 4 * 255))
    yield good(f"tiff float32 beyond 0 to 1 {mark}", wide, rounded)
    for name in ("float16", "float64"):  # valid, but Pillow cannot read them
        yield bad(f"tiff {name} {mark}", tiff(ramp.astype(name), byteorder=order))
    # Over the whole range of the type, so that only its extremes can be the scale.
    for name, low, high in (
        ("int16", -(2**15), 2**15),
        ("int32", -(2**31), 2**31),
        ("uint32", 0, 2**32),
    ):
        steps = np.round(low + ramp.astype(np.float64) * (high - 1 - low)).astype(name)
        data = tiff(steps, byteorder=order)
        yield good(f"tiff {name} {mark}", data, rounded)
    data = tiff(samples(1, 16).astype(np.int32), byteorder=order)
    yield good(f"tiff int32 of 16 bits {mark}", data, shown(samples(1, 16), 16))


def _colour(order: str, mark: str) -> Iterator[Case]:
    for bits in (8, 16):
        rgb, four, slack = samples(3, bits), samples(4, bits), bits // 16

        def written(values: Array, *extra: int, photometric: int = RGB) -> bytes:
            return tiff(values, photometric, byteorder=order, extrasamples=extra or None)

        yield good(f"tiff rgb {bits} bit {mark}", written(rgb), shown(rgb, bits), slack)
        clear = on_white(four, bits)
        yield good(f"tiff rgba {bits} bit {mark}", written(four, 2), clear, 1 + slack)
        plain = shown(four[..., :3], bits)
        yield good(f"tiff rgb and a spare {bits} bit {mark}", written(four, 0), plain, slack)
        # Associated alpha: colours are stored times alpha.
        mixed = four.copy()
        mixed[..., :3] = np.round(four[..., :3] * (four[..., 3:] / (2**bits - 1)))
        yield good(f"tiff associated alpha {bits} bit {mark}", written(mixed, 1), clear, 2 + slack)
        ink = shown(four, bits)
        data, mixed = written(four, photometric=INK), (255 - ink[..., :3]) * (255 - ink[..., 3:])
        yield good(f"tiff cmyk {bits} bit {mark}", data, np.round(mixed / 255), 2)


def _other_samples() -> Iterator[Case]:
    ramp = _ramp()
    for odd in (np.nan, np.inf, -np.inf, np.float32(3e38)):
        holed = ramp.copy()
        holed[3, 4] = odd
        yield Case(f"tiff float32 with {odd:g}", tiff(holed))
    yield good("tiff float32 white is zero", tiff(1 - ramp, WHITE_IS_ZERO), np.round(ramp * 255))
    deep = samples(1, 12)
    yield good("tiff gray 12 bit", gray_tiff(deep, BLACK_IS_ZERO, 12), shown(deep, 12))
    for bits in (1, 2, 4, 8):
        palette, indices = colours(2**bits), samples(1, bits)
        # Page 37: all the reds, then the greens, then the blues, of 16 bits.
        entries = (palette.T.astype(int) * 257).ravel().tolist()
        data = gray_tiff(indices, PALETTE, bits, colors=entries)
        yield good(f"tiff palette {bits} bit", data, palette[indices])
    pair = samples(2)
    pair[..., 0] = np.round(pair[..., 0] * (pair[..., 1] / 255))
    data = tiff(pair, planarconfig="contig", extrasamples=[1])
    yield good("tiff gray associated alpha", data, pair[..., 0].astype(int) + 255 - pair[..., 1], 2)
    yield bad("tiff rgb float32", tiff((samples(3) / 255).astype(np.float32), RGB))
    picture = scene()
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    in_lab = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
    assert in_lab
    del in_lab.info["icc_profile"]  # it contains the current time
    # Not the picture itself: 8-bit Lab cannot tell dark colours apart.
    back = ImageCms.profileToProfile(in_lab, lab, srgb, outputMode="RGB")
    assert back
    yield good("tiff lab", saved(in_lab, "TIFF"), back)
    yield good("tiff lab lzw", saved(in_lab, "TIFF", compression="tiff_lzw"), back)
    data = tiff(np.asarray(picture.convert("YCbCr")), YCBCR)
    yield good("tiff ycbcr", data, picture, 3)


def _layouts() -> Iterator[Case]:
    rgb, deep, gray = samples(3), samples(3, 16), samples()
    planes: dict[str, Any] = {"planarconfig": "separate"}
    reversed_bits = np.packbits(np.unpackbits(gray).reshape(-1, 8)[:, ::-1]).reshape(gray.shape)
    yield from group(good, "tiff", {
        "planes apart": tiff(rgb.transpose(2, 0, 1), RGB, **planes),
        "planes apart in strips": tiff(rgb.transpose(2, 0, 1), RGB, rowsperstrip=6, **planes),
        "strips": tiff(rgb, RGB, rowsperstrip=3),
        "rows of all": tiff(rgb, RGB, {ROWS: (LONG, [2**32 - 1])}),
        "without rows": tiff(rgb, RGB, {ROWS: None}),
        "without strip bytes": tiff(rgb, RGB, {STRIP_BYTES: None}),
        "tiles": tiff(rgb, RGB, tile=(16, 16)),
        "predictor 2 8 bit": tiff(rgb, RGB, compression="zlib", predictor=2),
        "deflate 8 bit": tiff(rgb, RGB, compression="zlib"),
    }, rgb)  # fmt: skip
    yield from group(good, "tiff", {
        "planes apart 16 bit": tiff(deep.transpose(2, 0, 1), RGB, **planes),
        "strips mm 16 bit": tiff(deep, RGB, rowsperstrip=3, byteorder=">"),
        "predictor 2 16 bit": tiff(deep, RGB, compression="zlib", predictor=2),
        "deflate 16 bit": tiff(deep, RGB, compression="zlib"),
    }, shown(deep, 16), 1)  # fmt: skip
    yield good("bigtiff", tiff(rgb, RGB, bigtiff=True), rgb)
    yield refused("bigtiff mm", tiff(rgb, RGB, bigtiff=True, byteorder=">"), "big-endian BigTIFF")
    yield good("tiff fill order 2", tiff(reversed_bits, fields={FILL_ORDER: (SHORT, [2])}), gray)


def _compressed() -> Iterator[Case]:
    picture, bit = scene(), Image.fromarray(samples(1, 1) * 255).convert("1")
    for name in ("packbits", "tiff_lzw", "lzma", "zstd"):
        yield good(f"tiff {name}", saved(picture, "TIFF", compression=name), picture)
    yield good("tiff jpeg", saved(picture, "TIFF", compression="jpeg", quality=95), picture, 8)
    for name in ("group3", "group4", "tiff_ccitt"):
        yield good(f"tiff {name}", saved(bit, "TIFF", compression=name), bit)


def _pages() -> Iterator[Case]:
    picture, plain = scene(), np.asarray(scene())
    pages = [Image.new("RGB", (9, 5), colour) for colour in ("red", "blue")]
    data = saved(picture, "TIFF", save_all=True, append_images=pages)
    at = len(tiff(plain, RGB))  # where the directory will be
    fields: dict[int, Field] = {700: (UNDEFINED, list(b"<x" * 999)), 34665: (LONG, [8])}
    yield from group(good, "tiff", {
        "pages": data,
        "cut in its last page": data[:-30],
        "second page outside": tiff(plain, RGB, following=2**31),
        "page that follows itself": tiff(plain, RGB, following=at),
        "exif directory of pixels": tiff(plain, RGB, fields),
        "unknown fields": tiff(plain, RGB, {65000 + i: (LONG, [i]) for i in range(100)}),
    }, picture)  # fmt: skip
    yield bad("tiff without fields", header(8) + b"\0\0" + bytes(4))


def _damaged() -> Iterator[Case]:
    gray = np.arange(H * W, dtype=np.uint8).reshape(H, W)
    every: dict[str, dict[int, Field]] = {
        "no width": {WIDTH: (LONG, [0])},
        "no height": {HEIGHT: (LONG, [0])},
        "width missing": {WIDTH: None},
        "pixels outside the file": {STRIP_OFFSETS: (LONG, [2**31])},
        "pixels missing": {STRIP_OFFSETS: None},
        "unknown photometric": {PHOTOMETRIC: (SHORT, [999])},
        "unknown compression": {COMPRESSION: (SHORT, [999])},
        "lzw of junk": {COMPRESSION: (SHORT, [5])},
        "deflate of junk": {COMPRESSION: (SHORT, [8])},
        "jpeg of junk": {COMPRESSION: (SHORT, [7])},
        "fax of junk as gray": {COMPRESSION: (SHORT, [4])},
        "bits of 200": {BITS: (SHORT, [200])},
        "no bits": {BITS: (SHORT, [0])},
        "no samples": {SAMPLES: (SHORT, [0])},
        "65535 samples": {SAMPLES: (SHORT, [65535])},
        "width of text": {WIDTH: (ASCII, [0x31, 0x32, 0])},
    }
    yield from group(bad, "tiff", {name: tiff(gray, fields=f) for name, f in every.items()})
    # As browsers do: missing rows are black.
    yield Case("tiff more rows than there are", tiff(gray, fields={HEIGHT: (LONG, [2400])}))
    uneven = tiff(np.zeros((4, 4, 3), np.uint8), RGB, {BITS: (SHORT, [8, 8, 16])})
    yield bad("tiff uneven bits", uneven)
    # The strip's length is too large, but its pixels are complete.
    lying = tiff(gray, fields={STRIP_BYTES: (LONG, [2**31])})
    yield good("tiff strip bytes of 2 GiB", lying, gray)


def _claims() -> Iterator[Case]:
    gray = np.zeros((4, 4), np.uint8)
    for big in (False, True):
        for side in (7072, 2**32 - 1):
            data = tiff(gray, fields={WIDTH: (LONG, [side]), HEIGHT: (LONG, [side])}, bigtiff=big)
            yield too_large(f"{'big' * big}tiff claims {side}x{side}", data)
    bomb = np.frombuffer(zlib.compress(bytes(64 * 2**20), 9), np.uint8)[None]
    size: dict[int, Field] = {tag: (LONG, [4]) for tag in (WIDTH, HEIGHT, ROWS)}
    size[COMPRESSION] = (SHORT, [8])
    yield good("tiff bomb in a strip", tiff(bomb, fields=size), gray)
    at = tiff(bomb).index(bomb.tobytes())
    for side in (65536, 2**31 - 16):
        tiled: dict[int, Field] = {
            TILE_WIDTH: (LONG, [side]), TILE_LENGTH: (LONG, [side]),
            TILE_OFFSETS: (LONG, [at]), TILE_BYTES: (LONG, [bomb.size]),
            STRIP_OFFSETS: None, STRIP_BYTES: None, ROWS: None,
        }  # fmt: skip
        yield bad(f"tiff tile of {side}x{side}", tiff(bomb, fields={**size, **tiled}))


def _crowds() -> Iterator[Case]:
    picture = np.asarray(scene())
    for big, count in ((False, 60_000), (True, 200_000)):
        data = _crowded(tiff(picture, RGB, bigtiff=big), count, big)
        yield good(f"{'big' * big}tiff of {count} fields", data, picture)
    claim = header(16, big=True) + b"\0" * 7 + b"\x10" + picture.tobytes()
    yield bad("bigtiff claims 2**60 fields", claim)
    yield bad("tiff claims 65535 fields", header(8) + b"\xff\xff" + bytes(400))
    flat = picture[:1].repeat(32, 0)
    at = tiff(flat, RGB).index(flat.tobytes())
    strips: dict[int, Field] = {
        STRIP_OFFSETS: (LONG, [at] * 100_000), STRIP_BYTES: (LONG, [48 * 3] * 100_000),
        ROWS: (LONG, [1]),
    }  # fmt: skip
    yield good("tiff of 100000 strips", tiff(flat, RGB, strips), flat)


def _crowded(data: bytes, spare: int, big: bool) -> bytes:
    """The file with ``spare`` more entries, all of them of the last tag there is."""
    count, entry, at = ("<Q", "<HHQQ", 16) if big else ("<H", "<HHII", 8)
    (fields,) = struct.unpack_from(count, data, at)
    table = at + struct.calcsize(count)
    end = table + fields * struct.calcsize(entry)
    more = struct.pack(entry, 65535, SHORT, 1, 1) * spare
    number = struct.pack(count, fields + spare)
    return header(len(data), big=big) + data[at:] + number + data[table:end] + more + bytes(8)
