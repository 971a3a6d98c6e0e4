"""Variables that would do nothing are named; those of other programs are not."""

from __future__ import annotations

import re

import pytest

from export.errors import ExportError
from export.networks import registered
from export.variables import check

RESNET50 = (
    "RESNET50_WEIGHTS is set, but resnet50 is not exported here: make export NETWORK=resnet50 "
    "WEIGHTS='my pets.pth'"
)


def test_a_variable_for_another_network_is_refused_if_typed_and_else_a_warning() -> None:
    environment = {"RESNET50_WEIGHTS": "my pets.pth", "MAKEFLAGS": "s"}
    assert check(environment, registered()) == [RESNET50]
    with pytest.raises(ExportError, match=re.escape(RESNET50)):
        check(environment | {"MAKEFLAGS": r"s -- RESNET50_WEIGHTS=my\ pets.pth"}, registered())


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("VIT_B_16_LABELS", "NETWORK=vit_b_16 LABELS=x"),
        ("RESNET101_EMBED_WEIGHTS", "make export NETWORK=resnet101 TASK=embed WEIGHTS=x"),
        ("RESNET18_EMBED_WEIGHTS", "make export NETWORK=resnet18 TASK=embed WEIGHTS=x"),
        ("CYCLEGEN_WEIGHTS", "did you mean CYCLEGAN_WEIGHTS"),
        (
            "CYCLEGAN_EMBED_WEIGHTS",
            "is for no network that is exported here; did you mean CYCLEGAN",
        ),
        ("PETS_WEIGHTS", "is for no network"),
        ("CYCLEGAN_LABELS", "cyclegan has no classes, so it takes no labels"),
    ],
)
def test_a_typed_variable_that_would_do_nothing_is_refused(variable: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check({variable: "x", "MAKEFLAGS": f"s -- {variable}=x DEVICE=cpu"}, registered())


@pytest.mark.parametrize("variable", ["CYCLEGAN_LABELS", "RESNET101_EMBED_LABELS"])
def test_labels_of_a_network_without_classes_are_refused(variable: str) -> None:
    with pytest.raises(ExportError, match="has no classes, so it takes no labels"):
        check({variable: "x"}, registered())


@pytest.mark.parametrize(
    "environment",
    [
        {"RESNET101_WEIGHTS": "x", "CYCLEGAN_PREPROCESS": "x", "MAKEFLAGS": ""},
        {"MODEL_WEIGHTS": "x", "CYCLEGEN_WEIGHTS": "x", "WEIGHTS": "x", "_LABELS": "x"},
        {"MY_WEIGHTS": "x", "MAKEFLAGS": " -- WEIGHTS=MY_WEIGHTS ARGS=A_MY_WEIGHTS=x"},
        {"RESNET50_WEIGHTS": "", "CYCLEGAN_LABELS": "", "MAKEFLAGS": " -- RESNET50_WEIGHTS="},
    ],
)
def test_variables_of_others_are_not(environment: dict[str, str]) -> None:
    assert check(environment, registered()) == []
