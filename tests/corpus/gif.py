"""GIF: frames, palettes and transparency, damage and claims. Sections are those of GIF 89a."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import GifImagePlugin, Image

from tests.corpus.case import Array, Case, bad, colours, good, group, too_large

TABLE = colours(16).tobytes()


def frame(
    indices: Array, at: tuple[int, int] = (0, 0), palette: bytes = b"", **options: object
) -> bytes:
    """Indices (H, W) into ``palette``, or into the file's, at a place in the screen."""
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(palette or TABLE)
    options = {"interlace": 0, "duration": 100, "include_color_table": bool(palette), **options}
    return b"".join(GifImagePlugin.getdata(image, at, **options))


def gif(
    width: int, height: int, frames: Sequence[bytes], palette: bytes = TABLE, background: int = 0
) -> bytes:
    """``frames``, and other blocks, on a screen (section 18)."""
    flags = 0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0
    screen = struct.pack("<HHBBB", width, height, flags, background, 0)
    return b"GIF89a" + screen + palette + b"".join(frames) + b";"


def cases() -> Iterator[Case]:
    yield from _frames()
    yield from _damaged()


def _frames() -> Iterator[Case]:
    table, other = colours(16), colours(32)[:16]
    full, small = (
        np.random.default_rng(height).integers(0, 16, (height, width))
        for height, width in ((24, 40), (10, 12))
    )
    plain = table[full]
    one, own = frame(full), frame(full, palette=other.tobytes())
    frames = [one, frame(15 - full), frame(full[::-1])]
    moving = gif(40, 24, frames)
    loop = b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0"
    text = b"!\xfe" + (b"\xfa" + b"a comment " * 25) * 4 + b"\0"
    yield from group(good, "gif", {
        "one frame": gif(40, 24, [one]),
        "87a": gif(40, 24, [one]).replace(b"89a", b"87a"),
        "interlaced": gif(40, 24, [frame(full, interlace=1)]),
        "animation": moving,
        "animation with extensions": gif(40, 24, [loop, text, *frames]),
        "without its last byte": moving[:-1],
        "cut in its second frame": moving[: len(moving) // 2],
        # Browsers grow the screen to a first frame that is larger.
        "frame larger than its screen": gif(20, 12, [one]),
    }, plain)  # fmt: skip
    yield from group(good, "gif of", {
        "5000 frames": gif(12, 10, [frame(small)] * 5000),
        "100000 comments": gif(12, 10, [b"!\xfe\1x\0" * 100_000, frame(small)]),
    }, table[small])  # fmt: skip
    yield good("gif own palette", gif(40, 24, [own]), other[full])
    yield good("gif own palette alone", gif(40, 24, [own], b""), other[full])
    clear = gif(40, 24, [frame(full, transparency=3)])
    yield good("gif transparent", clear, np.where((full == 3)[..., None], 255, plain))
    # Browsers leave what the first frame does not cover clear, whatever the background colour.
    inside = np.full((24, 40, 3), 255, np.uint8)
    inside[5:15, 7:19] = table[small]
    for background in (0, 7):
        data = gif(40, 24, [frame(small, (7, 5)), *frames], background=background)
        yield good(f"gif first frame inside, background {background}", data, inside)
    inside[5:15, 7:19][small == 15] = 255
    data = gif(40, 24, [frame(small, (7, 5), transparency=15)], background=15)
    yield good("gif first frame inside and transparent", data, inside)


def _damaged() -> Iterator[Case]:
    one = frame(np.arange(24 * 40).reshape(24, 40) % 16)
    at = one.index(b",")  # the Image Descriptor, section 20: place, size, flags; then the code size

    def changed(offset: int, value: bytes) -> bytes:
        return gif(40, 24, [one[: at + offset] + value + one[at + offset + len(value) :]])

    yield from group(bad, "gif", {
        "no frames": gif(40, 24, []),
        "code size 13": changed(10, b"\x0d"),
        "frame taller than its data": changed(7, b"\x30\0"),
        "frame of no width": changed(5, b"\0\0"),
        "codes of noise": gif(40, 24, [one[: at + 12] + b"\xff" * 254 + b"\0"]),
    })  # fmt: skip
    for side in (7072, 65535):
        yield too_large(f"gif screen of {side}x{side}", gif(side, side, [one]))
        yield too_large(f"gif frame of {side}x{side}", changed(5, struct.pack("<HH", side, side)))
