"""Odd, broken and hostile picture files, all of them generated: what serving must answer to each.

::

    orientation, samples_*, profiles    sound files: how samples, turns and colours are stored
    containers                          sound files: how they are put together
    broken, hostile, refused            damage, harm, and what is no picture that is served
    case, levels, encoders              what is expected, random samples, and bytes by hand

What is expected comes from the arrays that were written, or from Pillow's work on the picture that
went in: never from decoding the file.
"""

from __future__ import annotations

from functools import cache

from tests.corpus import (
    broken,
    containers,
    hostile,
    orientation,
    profiles,
    refused,
    samples_bmp,
    samples_jpeg,
    samples_png,
    samples_tiff,
)
from tests.corpus.case import Case, bad
from tests.corpus.case import refused as unsupported

__all__ = ["Case", "by_name", "cases"]

_FAMILIES = (
    orientation,
    samples_png,
    samples_tiff,
    samples_bmp,
    samples_jpeg,
    profiles,
    containers,
    broken,
    hostile,
    refused,
)


# Sound files of kinds so rare that Pillow cannot read them, or reads them wrongly: refused.
_RARE = (
    "tiff gray alpha 16 bit ii",
    "tiff gray alpha 16 bit mm",
    "tiff white is zero 16 bit mm",
    "tiff planes apart 16 bit",
    "tiff uint32 ii",
    "tiff uint32 mm",
    "jpeg jfif cut short",
    "jpeg adobe cut short",
    "bmp rle end at once",
)
_UNSUPPORTED = ("bigtiff mm", "bigtiff orientation 6 big endian")
# Refused by libavif before it tells their size.
_SIZE_UNTOLD = ("avif claims 100000x100000", "avif claims 4294967295x4294967295")
# Unsound, and shown as browsers show them: missing rows are black, metadata is not looked at. Of 16
# bits of a transparent colour the upper 8 decide.
_TOLERATED = (
    "png more rows than there are",
    "tiff more rows than there are",
    "png bomb in ztxt",
    "png bomb in itxt",
    "png bomb in iccp",
    "png trns rgb 16 bit",
)


@cache
def by_name() -> dict[str, Case]:
    """Every file by its name, in the families' order."""
    every = [case for family in _FAMILIES for case in family.cases()]
    named = {case.name: case for case in every}
    assert len(named) == len(every)
    for names, choice in (
        (_RARE, bad),
        (_SIZE_UNTOLD, bad),
        (_UNSUPPORTED, unsupported),
        (_TOLERATED, Case),
    ):
        named |= {name: choice(name, named[name].data) for name in names}
    return named


@cache
def cases() -> list[Case]:
    return list(by_name().values())
