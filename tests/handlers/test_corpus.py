"""Every file of the corpus decodes to its expected picture, or fails with its expected error."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator

import numpy as np
import pytest

from handlers.errors import RequestError
from handlers.pictures.limits import LIMITS
from handlers.pictures.pool import DecodePool
from tests.corpus import Case, by_name
from tests.specs import CYCLEGAN

VALID = {name: case for name, case in by_name().items() if case.code == 200}
# Files with too many bytes are refused before they reach the decoder.
INVALID = {
    name: case
    for name, case in by_name().items()
    if case.code != 200 and len(case.data) <= LIMITS.request_bytes
}


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    """Decodes as the workers do, but does not resize pictures."""
    limits = dataclasses.replace(LIMITS, network_pixels=LIMITS.pixels)
    pool = DecodePool(dataclasses.replace(CYCLEGAN, multiple=1), limits, 1)
    yield pool
    pool.close()


@pytest.mark.parametrize("case", VALID.values(), ids=VALID)
def test_the_picture_is_the_expected_one(pool: DecodePool, case: Case) -> None:
    side = None if case.pixels is None else min(case.pixels.size)
    picture = pool.decode(case.data, side, time.monotonic() + 60)
    if case.pixels is not None:
        assert picture.size == case.pixels.size
        difference = (
            np.frombuffer(picture.data, np.uint8).astype(np.int16)
            - np.asarray(case.pixels, np.int16).ravel()
        )
        assert np.abs(difference).max() <= case.tolerance


@pytest.mark.parametrize("case", INVALID.values(), ids=INVALID)
def test_the_error_is_the_expected_one(pool: DecodePool, case: Case) -> None:
    with pytest.raises(RequestError) as caught:
        pool.decode(case.data, None, time.monotonic() + 60)
    assert (caught.value.code, type(caught.value).__name__) == (case.code, case.kind)
    assert re.search(case.message, caught.value.message)


def test_the_corpus_stays_large_and_light() -> None:
    assert len(by_name()) >= 600
    assert sum(len(case.data) for case in by_name().values()) < 64 * 2**20
