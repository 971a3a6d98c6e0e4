from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from handlers.tasks.translate import encode


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_the_bytes_are_of_the_format_and_the_picture(
    photographs: dict[str, Image.Image], format: str
) -> None:
    picture = photographs["chelsea"]
    with Image.open(io.BytesIO(encode(picture, format, 95))) as image:
        assert (image.format, image.size) == (format.upper(), picture.size)
        difference = np.asarray(image.convert("RGB"), np.int16) - np.asarray(picture, np.int16)
    assert np.abs(difference).mean() <= (0 if format == "png" else 3)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality_is_heeded(photographs: dict[str, Image.Image], format: str) -> None:
    sizes = [len(encode(photographs["chelsea"], format, quality)) for quality in (1, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[2] > 3 * sizes[0]
