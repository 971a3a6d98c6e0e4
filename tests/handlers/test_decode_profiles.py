"""Limits of ICC profiles. The corpus has profiles that are applied or ignored (test_corpus.py)."""

from __future__ import annotations

import tracemalloc

import pytest
from PIL import Image

from handlers.pictures.decode import decode
from handlers.pictures.limits import PROFILE_BYTES
from tests.corpus.case import WAYS
from tests.corpus.metadata import SRGB, SWAPPED
from tests.handlers.support import Save


@pytest.mark.parametrize("way", ["png", "jpeg", "webp lossless", "tiff", "avif"])
def test_a_profile_over_the_limit_is_ignored(saved: Save, way: str) -> None:
    format, options, _ = WAYS[way]
    stored, swapped = (200, 50, 100), (50, 200, 100)
    for excess, expected in ((0, swapped), (1, stored)):
        profile = SWAPPED.ljust(PROFILE_BYTES + excess, b"\0")
        data = saved(Image.new("RGB", (16, 16), stored), format, icc_profile=profile, **options)
        assert decode(data).getpixel((3, 3)) == pytest.approx(expected, abs=2)


def test_no_profile_is_kept(saved: Save) -> None:
    image = Image.new("RGB", (8, 8))
    pictures = [saved(image, icc_profile=SRGB + bytes(2**20 + i)) for i in range(8)]
    decode(pictures[0])
    tracemalloc.start()
    for picture in pictures[1:]:
        decode(picture)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 2**20
