"""The pictures that choose the limits of decoding are sound."""

from __future__ import annotations

import pytest

from benchmarks import slowest
from benchmarks.pictures import photograph
from handlers.pictures.decode import decode
from handlers.pictures.limits import LIMITS


def test_every_picture_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowest, "SIDE", 64)
    names = []
    for name, data in slowest.files():
        assert decode(data).size == (64, 64), name
        names.append(name)
    assert len(set(names)) == len(names) > 20


def test_the_real_pictures_are_as_large_as_the_limits_allow() -> None:
    assert slowest.SIDE**2 <= LIMITS.pixels < (slowest.SIDE + 1) ** 2


def test_a_measurement_is_of_the_process_that_decodes() -> None:
    seconds, peak = slowest.measured(photograph((3000, 3000)))
    assert 0 < seconds < 60
    assert 9_000_000 < peak < LIMITS.decode_bytes
