"""Variables of networks that are not exported are refused; those of other programs are not."""

from __future__ import annotations

import pytest

from export.errors import ExportError
from export.variables import check

NETWORKS = ("resnet101", "cyclegan")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"RESNET50_WEIGHTS": "x"},
            "RESNET50_WEIGHTS is set, but resnet50 is not exported here: make export "
            "NETWORK=resnet50 WEIGHTS=x",
        ),
        ({"VIT_B_16_LABELS": "x"}, "NETWORK=vit_b_16 LABELS=x"),
        (
            {"CYCLEGEN_WEIGHTS": "x", "MAKEFLAGS": "s -- CYCLEGEN_WEIGHTS=x DEVICE=cpu"},
            "did you mean CYCLEGAN_WEIGHTS",
        ),
        ({"PETS_WEIGHTS": "x", "MAKEFLAGS": " -- PETS_WEIGHTS=x"}, "is for no network"),
    ],
)
def test_a_variable_that_would_do_nothing_is_refused(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        check(environment, NETWORKS)


@pytest.mark.parametrize(
    "environment",
    [
        {"RESNET101_WEIGHTS": "x", "CYCLEGAN_PREPROCESS": "x", "MAKEFLAGS": ""},
        {"MODEL_WEIGHTS": "x", "CYCLEGEN_WEIGHTS": "x", "WEIGHTS": "x", "_LABELS": "x"},
        {"MY_WEIGHTS": "x", "MAKEFLAGS": " -- WEIGHTS=MY_WEIGHTS ARGS=A_MY_WEIGHTS=x"},
    ],
)
def test_variables_of_others_are_not(environment: dict[str, str]) -> None:
    check(environment, NETWORKS)
