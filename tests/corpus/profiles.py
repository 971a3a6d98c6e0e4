"""ICC profiles in every format that carries them; what cannot be used is ignored."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from tests.corpus.case import Case, good, saved, scene
from tests.corpus.encoders import (
    INK,
    SRGB,
    TRUECOLOUR,
    UNDEFINED,
    chunk,
    gray_profile,
    png,
    segment,
    swapped_profile,
    tiff,
)


def through(profile: bytes, image: Image.Image) -> Image.Image:
    """``image`` in sRGB, as LittleCMS sees it through ``profile``."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None
    return converted


def cases() -> Iterator[Case]:
    picture, gray = scene(), scene().convert("L")
    formats: dict[str, tuple[str, dict[str, Any], int]] = {
        "png": ("PNG", {}, 0),
        "webp": ("WEBP", {"lossless": True}, 0),
        "tiff": ("TIFF", {}, 0),
        "jpeg": ("JPEG", {"quality": 97, "subsampling": 0}, 8),
        "avif": ("AVIF", {"quality": 97, "subsampling": "4:4:4"}, 8),
    }
    swapped, linear = swapped_profile(), gray_profile(1.0)
    of_swapped = through(swapped, picture)
    for name, (format, how, slack) in formats.items():
        data = saved(picture, format, icc_profile=SRGB, **how)
        yield good(f"{name} profile of srgb", data, picture, max(slack, 1))
        data = saved(picture, format, icc_profile=swapped, **how)
        yield good(f"{name} profile swapped", data, of_swapped, slack + 2)
        for junk, profile in (("junk", b"junk" * 40), ("cut", SRGB[:200]), ("gray", linear)):
            data = saved(picture, format, icc_profile=profile, **how)
            yield good(f"{name} profile of {junk} ignored", data, picture, slack)
    for name in ("png", "tiff"):
        data = saved(gray, formats[name][0], icc_profile=linear)
        yield good(f"{name} gray profile", data, through(linear, gray), 1)
        data = saved(gray, formats[name][0], icc_profile=swapped)
        yield good(f"{name} gray with an rgb profile", data, gray)
    half = picture.copy()
    half.putalpha(Image.linear_gradient("L").resize(picture.size))
    expected = Image.composite(
        of_swapped, Image.new("RGB", picture.size, "white"), half.getchannel("A")
    )
    for name in ("png", "webp", "tiff"):
        how = {**formats[name][1], "icc_profile": swapped}
        if name == "webp":
            how["exact"] = True  # keeps the colours of what is clear
        data = saved(half, formats[name][0], **how)
        yield good(f"{name} rgba profile swapped", data, expected, 1)
    dull = picture.quantize(64)
    data = saved(dull, "PNG", icc_profile=swapped)
    yield good("png palette profile swapped", data, through(swapped, dull.convert("RGB")), 1)
    ink = picture.convert("CMYK")
    tagged = tiff(np.asarray(ink), INK, fields={34675: (UNDEFINED, list(b"junk" * 50))})
    yield good("tiff cmyk broken profile", tagged, ink.convert("RGB"), 2)
    # ICC.1, B.4: a profile over several APP2 segments, each with its number and their count.
    plain = saved(picture, "JPEG", quality=97, subsampling=0)
    thirds = [swapped[i : i + 200] for i in range(0, len(swapped), 200)]
    parts = [
        segment(0xE2, b"ICC_PROFILE\0" + bytes([i, len(thirds)]) + part)
        for i, part in enumerate(thirds, 1)
    ]
    for name, ordered in (("in parts", parts), ("in parts backwards", parts[::-1])):
        data = plain[:2] + b"".join(ordered) + plain[2:]
        yield good(f"jpeg profile {name}", data, of_swapped, 10)
    data = plain[:2] + b"".join(parts[1:]) + plain[2:]
    yield good("jpeg profile with a part missing", data, picture, 8)
    twice = chunk(b"iCCP", b"icc\0\0" + zlib.compress(swapped))
    values = np.asarray(picture)
    yield good(
        "png profile stored by hand", png(values, 8, TRUECOLOUR, before=twice), of_swapped, 1
    )
    for name, body in (
        ("unknown compression", b"icc\0\7x"),
        ("cut", b"icc\0\0" + zlib.compress(swapped)[:50]),
    ):
        data = png(values, 8, TRUECOLOUR, before=chunk(b"iCCP", body))
        yield good(f"png profile chunk {name}", data, picture)
