from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from handlers.pictures.decode import encode


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_bytes_are_of_the_format_and_the_picture(
    photographs: dict[str, Image.Image], format: str
) -> None:
    picture = photographs["chelsea"]
    with Image.open(io.BytesIO(encode(picture, format, 95))) as image:
        assert (image.format, image.size) == (format, picture.size)
        difference = np.asarray(image.convert("RGB"), np.int16) - np.asarray(picture, np.int16)
    assert np.abs(difference).mean() <= (0 if format == "PNG" else 3)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_quality_is_heeded(photographs: dict[str, Image.Image], format: str) -> None:
    sizes = [len(encode(photographs["chelsea"], format, quality)) for quality in (1, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[2] > 3 * sizes[0]
