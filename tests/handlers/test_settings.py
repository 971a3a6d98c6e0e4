"""Which precision a worker is asked for: the variable that `make serve` sets, else the YAML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.errors import LoadError
from handlers.settings import PRECISION_VARIABLE, PRECISIONS, Settings
from handlers.torchserve import Handler


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_variable_has_priority_over_the_yaml(precision: str) -> None:
    yaml = {"handler": {"precision": "float32"}}
    assert Settings.from_yaml(yaml, precision).precision == precision
    assert Settings.from_yaml(yaml).precision == "float32"
    assert Settings.from_yaml({}).precision == "auto"


@pytest.mark.parametrize("wrong", ["fp16", "half", "", "Float32"])
def test_a_wrong_variable_is_named(
    load: Callable[..., Handler],
    monkeypatch: pytest.MonkeyPatch,
    model_store: Path,
    wrong: str,
) -> None:
    monkeypatch.setenv(PRECISION_VARIABLE, wrong)
    expected = f"{PRECISION_VARIABLE} is one of auto, float32, bfloat16, float16, not '{wrong}'"
    with pytest.raises(LoadError, match=expected):
        load(model_store / "cyclegan.pt")
