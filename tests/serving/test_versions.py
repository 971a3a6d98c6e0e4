"""Which version answers a request, and until when a version is in use."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.settings import Settings
from serving.archives import Archive
from serving.plan import ModelPlan
from serving.refusals import Refused
from serving.versions import Served


def planned(version: str, path: Path = Path("a.mar")) -> ModelPlan:
    archive = Archive(path, "a", "classify", "untrained", {}, Settings(), {}, version)
    return ModelPlan(archive, workers=1, batch=1, queue=10)


OLD, NEW = planned("01"), planned("02")


def answered(served: Served, requests: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    for _ in range(requests):
        with served.used("a", None) as chosen:
            seen[chosen.version] += 1
    return seen


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.1, 10), (0.25, 25), (0.99, 99)])
def test_a_candidate_gets_its_share(share: float, expected: int) -> None:
    served = Served([OLD], lambda key: True, random.Random(1).random)
    served.change("a", candidate=NEW, share=share)
    assert answered(served, 1000)["02"] == pytest.approx(10 * expected, abs=30)
    assert expected or not answered(served, 1000)["02"]


def test_a_candidate_that_does_not_answer_gets_nothing() -> None:
    ready = False
    served = Served([OLD], lambda key: ready, random.Random(1).random)
    served.change("a", candidate=NEW, share=0.5)
    assert answered(served, 100) == {"01": 100}
    ready = True
    assert answered(served, 100)["02"] == pytest.approx(50, abs=20), "what it missed is not made up"


def test_a_request_may_name_any_loaded_version() -> None:
    served = Served([OLD], lambda key: False)
    served.change("a", candidate=NEW)
    for version in ("01", "02"):
        with served.used("a", version) as chosen:
            assert chosen.version == version
    with pytest.raises(Refused, match="a has no version 03: it has 01, 02"), served.used("a", "03"):
        pass


def test_no_request_names_a_version_that_is_being_loaded() -> None:
    served = Served([OLD], lambda key: True)
    served.set_loading(NEW)
    assert list(served.watched) == ["a/01", "a/02"]
    assert [each.key for each in served.accepted] == ["a/01"]
    with pytest.raises(Refused), served.used("a", "02"):
        pass


def test_a_version_is_in_use_until_its_last_answer() -> None:
    served = Served([OLD], lambda key: True)
    with served.used("a", None):
        served.change("a", default=NEW)
        assert served.present("a/01") == 1
        assert answered(served, 3) == {"02": 3}
    assert served.present("a/01") == 0


def test_the_default_is_loaded_first() -> None:
    """TorchServe's default is the first version that it loads."""
    served = Served([OLD, replace(OLD, archive=replace(OLD.archive, model="b"))], lambda key: True)
    served.change("a", default=NEW, previous=OLD)
    assert [each.key for each in served.accepted] == ["a/02", "a/01", "b/01"]
