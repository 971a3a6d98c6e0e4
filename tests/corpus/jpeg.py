"""JPEG: sampling, colour spaces, scans and segments, damage and claims.

Pillow writes the files, which are then changed. Sections are those of ITU-T T.81.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageChops

from tests.corpus.case import Array, Case, bad, good, group, saved, scene, too_large, written

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOF, SOF_PROGRESSIVE, DHT, SOS, DQT, DRI = 0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD


def segment(marker: int, data: bytes) -> bytes:
    """B.1.1.4: a marker with its length."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def inserted(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with ``segments`` right behind its first marker."""
    return data[:2] + b"".join(segments) + data[2:]


def segments(data: bytes) -> list[bytes]:
    """A JPEG cut before every marker; entropy-coded bytes stay with the scan they follow."""
    parts, at = [data[:2]], 2
    while data[at : at + 2] != EOI:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == SOS:
            while data[end] != 0xFF or data[end + 1] in (0, *range(0xD0, 0xD8)):
                end += 1
        parts.append(data[at:end])
        at = end
    return [*parts, data[at:]]


def sos(names: Sequence[int], spectrum: bytes = b"\0\x3f\0") -> bytes:
    """B.2.3: a scan's header."""
    listed = b"".join(bytes([name, 0]) for name in names)
    return segment(SOS, bytes([len(names)]) + listed + spectrum)


def cases() -> Iterator[Case]:
    yield from _ordinary()
    yield from _sampling()
    yield from _colour_spaces()
    yield from _segments()
    yield from _frame_damaged()
    yield from _scans_damaged()
    yield from _claims()
    yield from _many_scans()
    yield from _arithmetic()


def _ordinary() -> Iterator[Case]:
    picture = scene(64, 48)
    gray = picture.convert("L")
    pages = [Image.new("RGB", (9, 5), colour) for colour in ("red", "blue")]
    for progressive in (False, True):
        ending = " progressive" * progressive
        for sampling, name in ((0, "444"), (1, "422"), (2, "420")):
            data = saved(picture, "JPEG", quality=95, subsampling=sampling, progressive=progressive)
            # Chroma at half its size loses what changes from one sample to the next.
            yield good(f"jpeg {name}{ending}", data, picture, 16 if sampling else 8)
        data = saved(gray, "JPEG", quality=95, progressive=progressive)
        yield good(f"jpeg gray{ending}", data, gray, 8)
    for unit in ("blocks", "rows"):
        data = written("jpeg", picture, **{f"restart_marker_{unit}": 1})
        yield good(f"jpeg restart marker {unit}", data, picture, 8)
    mpo = saved(picture, "MPO", save_all=True, append_images=pages, quality=95, subsampling=0)
    yield good("mpo", mpo, picture, 8)
    yield good("jpeg cut through blocks", written("jpeg", scene(61, 58)), scene(61, 58), 8)


def _sampling() -> Iterator[Case]:
    """Sampling factors that Pillow does not write, with chroma of one level.

    Then only the order of the luma blocks depends on the factors, so that a file of the same
    number of blocks per MCU becomes one of other factors by a change of its frame header.
    """
    luma = np.random.default_rng(7).integers(60, 200, 64)
    for across, down, like, sampling in ((4, 1, (2, 2), 2), (1, 2, (2, 1), 1), (1, 4, (2, 2), 2)):
        blocks = np.empty_like(luma)
        blocks[_mcu_order(*like)] = luma[_mcu_order(across, down)]
        picture = _ycc(blocks, 100, 150)
        data = saved(picture, "JPEG", quality=100, subsampling=sampling)
        changed = data.replace(
            bytes([1, like[0] << 4 | like[1], 0]), bytes([1, across << 4 | down, 0])
        )
        yield good(f"jpeg luma {across}x{down}", changed, _ycc(luma, 100, 150).convert("RGB"), 1)
    # A scan for each component: A.2.3.
    planes = [Image.fromarray(plane) for plane in np.asarray(_ycc(luma, 90, 90)).transpose(2, 0, 1)]
    parts = [segments(saved(plane, "JPEG", quality=100)) for plane in planes]
    *head, frame, coding, ac, _, end = parts[0]
    assert frame[1] == SOF
    frame = segment(SOF, frame[4:9] + b"\3\1\x11\0\2\x11\0\3\x11\0")
    scans = [part[-2].replace(b"\1\1\0", bytes([1, i, 0]), 1) for i, part in enumerate(parts, 1)]
    data = b"".join([*head, frame, coding, ac, *scans, end])
    yield good("jpeg components in scans of their own", data, _ycc(luma, 90, 90).convert("RGB"), 1)


def _mcu_order(across: int, down: int) -> Array:
    """A.2.3: the numbers of the 8x8 blocks of 64x64 pixels, in the order of the file."""
    rows = np.arange(64).reshape(8 // down, down, 8 // across, across)
    return rows.transpose(0, 2, 1, 3).ravel()


def _ycc(luma: Array, blue: int, red: int) -> Image.Image:
    """64x64 pixels of flat blocks, and chroma of one level."""
    levels = np.kron(luma.reshape(8, 8), np.ones((8, 8))).astype(np.uint8)
    planes = [levels, np.full_like(levels, blue), np.full_like(levels, red)]
    return Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes])


def _colour_spaces() -> Iterator[Case]:
    """Four channels, and three that are not YCbCr; Adobe's APP14 (T.872, 6.5.3) says which."""
    picture = scene()
    ink = picture.convert("CMYK")
    for name, progressive in (("baseline", False), ("progressive", True)):
        for ending, options in (("", {}), (" broken profile", {"icc_profile": b"junk" * 50})):
            data = saved(ink, "JPEG", quality=95, progressive=progressive, **options)
            yield good(f"jpeg cmyk {name}{ending}", data, ink.convert("RGB"), 6)
    for name, black in (("no ink", 0), ("black ink", 155)):
        flat = saved(Image.new("CMYK", (40, 24), (0, 0, 0, black)), "JPEG")
        yield good(f"jpeg cmyk {name}", flat, np.full((24, 40), 255 - black), 1)
    # YCCK: the inks as if they were light in YCbCr, and black as it is. Adobe inverts all inks,
    # and so does Pillow.
    luma = ImageChops.invert(picture).convert("YCbCr")
    inverted = [ImageChops.invert(plane) for plane in luma.split()]
    ycck = Image.merge("CMYK", [*inverted, Image.new("L", picture.size)])
    data = saved(ycck, "JPEG", quality=97)
    assert data.count(b"Adobe\0\x64\0\0\0\0\0") == 1
    data = data.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")
    yield good("jpeg ycck adobe", data, picture, 4)
    rgb = saved(picture, "JPEG", quality=97, subsampling=0, keep_rgb=True)
    parts = segments(rgb)
    by_names = b"".join(part for part in parts if part[1] != 0xEE)
    numbered = [part.replace(b"R", b"\1").replace(b"G", b"\2").replace(b"B", b"\3")
                if part[1] == SOF else part for part in parts]  # fmt: skip
    at = next(i for i, part in enumerate(parts) if part[1] == SOS)
    numbered[at] = sos([1, 2, 3]) + parts[at][14:]
    yield good("jpeg rgb by its names", by_names, picture, 1)
    yield good("jpeg rgb adobe", b"".join(numbered), picture, 1)


def _segments() -> Iterator[Case]:
    """What stands between the frames and scans, and what is missing there."""
    data, parts = written("jpeg"), segments(written("jpeg"))
    # A phone's motion photo: a film behind the JPEG, whose bytes spell scans by chance.
    film = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\3\x28mdat" + b"\xff\xda\0\2" * 200
    yield from group(good, "jpeg", {
        "motion photo": data + film,
        "with scan markers in a comment": inserted(data, segment(0xFE, b"\xff\xda\0\2" * 200)),
        "of 20000 comments": inserted(data, segment(0xFE, b"x") * 20_000),
        "fill bytes": SOI + b"".join(b"\xff" * 9 + part for part in parts[1:]),
        "thumbnail for exif": written("jpeg", exif=b"Exif\0\0" + data),
        # A webcam's MJPEG frame leaves out the tables of annex K.3.
        "without huffman tables": b"".join(part for part in parts if part[1] != DHT),
    }, scene(), 8)  # fmt: skip
    yield from group(bad, "jpeg", {
        "two starts and an end": SOI + SOI + EOI,
        "without any scan": b"".join(parts[:-2]) + EOI,
        "cut behind its scan's header": b"".join(parts[:-2]) + parts[-2][:14],
        "jfif cut short": SOI + segment(0xE0, b"JFIF\0") + data[2:],  # rare: Pillow refuses it
        "adobe cut short": inserted(data, segment(0xEE, b"Adobe")),
        "cut in its last scan lines": data[: -len(data) // 20],
        "progressive cut in its last scan": written("jpeg progressive")[:-20],
    })  # fmt: skip
    # Damage inside a scan changes colours; no decoder can tell.
    yield Case("jpeg damaged inside its scan", data[:-300] + b"\x12" * 10 + data[-290:])


def _frame_damaged() -> Iterator[Case]:
    gray = np.full((16, 24), 77)
    whole = saved(Image.fromarray(gray.astype(np.uint8)), "JPEG")
    frame = next(part for part in segments(whole) if part[1] == SOF)
    yield from group(bad, "jpeg", {name: whole.replace(frame, other) for name, other in {
        "no height": frame[:5] + b"\0\0" + frame[7:],
        "no width": frame[:7] + b"\0\0" + frame[9:],
        "12 bits": frame[:4] + b"\x0c" + frame[5:],
        "no components": segment(SOF, frame[4:9] + b"\0"),
        "200 components": segment(SOF, frame[4:9] + b"\xc8" + frame[10:] * 200),
        "sampling of nothing": frame[:11] + b"\0" + frame[12:],
        "sampling of five": frame[:11] + b"\x51" + frame[12:],
        "a table it has not": frame[:12] + b"\3",
        "hierarchical frame": b"\xff\xc5" + frame[2:],
        "two frames": frame + frame,
        "no frame": b"",
        "frame cut short": segment(SOF, frame[4:9]),
        "segment longer than the file": b"\xff\xe0\xff\xff" + frame,
        "huffman table too full": segment(DHT, b"\0" + b"\xff" * 16 + bytes(255)) + frame,
        "huffman table 9": segment(DHT, b"\x09" + bytes(16)) + frame,
        "quantiser 9": segment(DQT, b"\x09" + bytes(64)) + frame,
    }.items()})  # fmt: skip
    # libjpeg, and with it every browser, goes on behind the length.
    endless = whole.replace(frame, b"\xff\xe0\0\0" + frame)
    yield good("jpeg segment of no length", endless, gray)
    taller = frame[:5] + b"\0\x20" + frame[7:]
    yield Case("jpeg with more rows than its scan", whole.replace(frame, taller))
    # B.2.5: DNL, behind the first scan, replaces a height of zero; no decoder in use reads it.
    late = whole[:-2] + segment(0xDC, b"\0\x10") + EOI
    yield good("jpeg with a spare dnl", late, gray)
    yield bad("jpeg height in a dnl", late.replace(frame, frame[:5] + b"\0\0" + frame[7:]))


def _scans_damaged() -> Iterator[Case]:
    whole = saved(Image.new("L", (24, 16), 77), "JPEG")
    parts = segments(whole)
    for name, start in {
        "scan of another component": b"\1\7\0",
        "scan of no components": b"\0\1\0",
        "scan with another table": b"\1\1\x33",
    }.items():
        scan = parts[-2].replace(b"\1\1\0", start, 1)
        yield bad(f"jpeg {name}", b"".join([*parts[:-2], scan, parts[-1]]))
    yield bad("jpeg without quantisers", b"".join(part for part in parts if part[1] != DQT))


def _claims() -> Iterator[Case]:
    frame = b"\1\x11\0"
    for marker, name in ((SOF, "jpeg"), (SOF_PROGRESSIVE, "jpeg progressive")):
        for side in (7072, 65535):
            start = SOI + segment(marker, struct.pack(">BHHB", 8, side, side, 1) + frame)
            yield too_large(f"{name} claims {side}x{side}", start + sos([1]) + bytes(99) + EOI)


def _many_scans() -> Iterator[Case]:
    """A first DC scan may be sent again. 100 scans are the last that are accepted."""
    parts = segments(written("jpeg progressive"))
    first = next(i for i, part in enumerate(parts) if part[1] == SOS)
    more = sum(part[1] == SOS for part in parts)

    def again(scans: int) -> bytes:
        return b"".join([*parts[:first], *[parts[first]] * (scans - more), *parts[first:]])

    yield good("jpeg of 100 scans", again(100), scene(), 8)
    for count in (101, 3001):
        yield too_large(f"jpeg of {count} scans", again(count))
    # Large enough that each scan costs: 7000x7000 of empty blocks.
    frame = segment(SOF_PROGRESSIVE, struct.pack(">BHHB", 8, 7000, 7000, 1) + b"\1\x11\0")
    tables = segment(DQT, b"\0" + bytes([8] * 64)) + segment(DHT, b"\0\1" + bytes(16))
    scan = sos([1], b"\0\0\0") + bytes(8)
    for count in (20, 21, 100, 3001):
        data = SOI + tables + frame + scan * count + EOI
        make = Case if count == 20 else too_large
        yield make(f"jpeg of 7000x7000 and {count} scans", data)


def _arithmetic() -> Iterator[Case]:
    """Annex D, by its shortest files.

    After a marker an arithmetic decoder reads zeros (D.2.6). It then takes the likelier choice
    first and the other one next: no difference, end of the block. With a restart after every
    block, a picture of middle gray needs no coded byte at all.
    """
    tables = segment(DQT, b"\0" + bytes([8] * 64))
    coded = b"".join(b"\xff" + bytes([0xD0 + i % 8]) for i in range(5))  # between six blocks
    for marker, name, spectrum in (
        (0xC9, "sequential", b"\0\x3f\0"),
        (0xCA, "progressive", b"\0\0\0"),
    ):
        frame = segment(marker, struct.pack(">BHHB", 8, 16, 24, 1) + b"\1\x11\0")
        data = SOI + tables + frame + segment(DRI, b"\0\1") + sos([1], spectrum) + coded + EOI
        yield good(f"jpeg arithmetic {name}", data, np.full((16, 24), 128))
