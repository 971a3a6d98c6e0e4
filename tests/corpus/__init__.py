"""Odd, broken and hostile picture files, all of them generated, with the answer each must get.

One module per format, then ``metadata`` (EXIF and ICC in every format) and ``others`` (damage and
sizes common to all formats, and files that are not served). The expected pixels come from the
arrays that were written, or from the picture that Pillow encoded: never from decoding the file.
"""

from __future__ import annotations

from functools import cache

from tests.corpus import bmp, gif, jpeg, metadata, others, png, tiff, webp
from tests.corpus.case import Case

__all__ = ["Case", "by_name", "cases"]

_FAMILIES = (metadata, png, tiff, bmp, jpeg, gif, webp, others)


@cache
def cases() -> list[Case]:
    return [case for family in _FAMILIES for case in family.cases()]


@cache
def by_name() -> dict[str, Case]:
    named = {case.name: case for case in cases()}
    assert len(named) == len(cases()), "two files with one name"
    return named
