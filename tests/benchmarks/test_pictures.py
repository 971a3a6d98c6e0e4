"""The photographs that benchmarks send."""

from __future__ import annotations

import io

from PIL import Image

from benchmarks.pictures import SIZES, photograph


def test_a_photograph_has_its_size_and_a_camera_s_bytes() -> None:
    data = photograph(SIZES["1280x720"])
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", (1280, 720))
    assert 250e3 < len(data) < 400e3
    assert data == photograph(SIZES["1280x720"])
