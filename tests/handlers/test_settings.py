"""The section ``handler`` of a model's YAML, and the environment variable for the precision."""

from __future__ import annotations

import pytest

from handlers.errors import LoadError
from handlers.pictures.limits import LIMITS, Limits
from handlers.settings import ENGINES, PRECISIONS, SYNONYMS, VARIABLES, Settings
from tests.handlers.support import Load, WriteArtefact


def test_defaults_apply_without_a_section() -> None:
    assert Settings.from_yaml({}) == Settings.from_yaml({"handler": None}) == Settings()
    empty = {"batchSize": 8, "handler": {"limits": {}}}
    assert Settings.from_yaml(empty) == Settings(LIMITS, "auto", "auto")


def test_settings_that_are_not_named_keep_their_defaults() -> None:
    limits = {"pixels": 1000, "decode_seconds": 0.5}
    changed = Settings.from_yaml({"handler": {"limits": limits, "precision": "float32"}})
    assert changed == Settings(Limits(pixels=1000, decode_seconds=0.5), "float32")


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ([1], "its keys are limits, precision, engine, cpu_batch_pixels"),
        ("limits", "handler must be a map"),
        ({"limit": {}}, "its keys are limits, precision, engine, cpu_batch_pixels"),
        ({"limits": 5}, "limits must be a map"),
        ({"cpu_batch_pixels": 0}, "cpu_batch_pixels must be a whole number above 0, not 0"),
        ({"cpu_batch_pixels": True}, "above 0, not True"),
        (
            {"precision": "fp8"},
            "precision must be one of auto, float32, bfloat16, float16, int8, not 'fp8'",
        ),
        ({"limits": {"pixel": 5}}, "no limit is called pixel: there are request_bytes"),
        ({"limits": {"pixels": 0}}, "pixels must be a whole number above 0, not 0"),
        ({"limits": {"pixels": -1}}, "above 0, not -1"),
        ({"limits": {"pixels": 1.5}}, "whole number"),
        ({"limits": {"pixels": "50M"}}, "not '50M'"),
        ({"limits": {"pixels": True}}, "not True"),
        ({"limits": {"jpeg_scans": None}}, "not None"),
        ({"limits": {"decode_seconds": 0}}, "decode_seconds must be a number above 0"),
        ({"limits": {"decode_bytes": 1000}}, "decode_bytes must be at least 67108864"),
    ],
)
def test_the_message_describes_the_mistake(handler: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.from_yaml({"handler": handler})


@pytest.mark.parametrize(
    ("key", "value"),
    [*(("precision", value) for value in PRECISIONS), *(("engine", value) for value in ENGINES)],
)
def test_a_variable_takes_precedence_over_the_yaml(key: str, value: str) -> None:
    yaml = {"handler": {"precision": "float32", "engine": "torchscript"}}
    assert getattr(Settings.from_yaml(yaml, {VARIABLES[key]: value}), key) == value
    assert getattr(Settings.from_yaml(yaml), key) in ("float32", "torchscript")
    assert getattr(Settings.from_yaml({}), key) == "auto"


@pytest.mark.parametrize(("synonym", "meant"), SYNONYMS.items())
def test_a_synonym_is_understood(synonym: str, meant: str) -> None:
    assert Settings.from_yaml({"handler": {"precision": synonym}}).precision == meant
    assert Settings.from_yaml({}, {VARIABLES["precision"]: synonym}).precision == meant


def test_the_worker_reads_the_variable(
    artefact: WriteArtefact, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artefact()
    assert load(path, precision="bfloat16").service.engine.precision == "bfloat16"
    monkeypatch.setenv(VARIABLES["precision"], "float32")
    assert load(path, precision="bfloat16").service.engine.precision == "float32"


def test_a_mistake_in_the_yaml_fails_the_load(artefact: WriteArtefact, load: Load) -> None:
    yaml = {"handler": {"limits": {"pixels": "many"}}}
    with pytest.raises(LoadError, match="the settings of the model: the limit pixels must be"):
        load(artefact(), yaml=yaml)


@pytest.mark.parametrize("wrong", ["fp8", "", "Float32"])
def test_a_wrong_variable_fails_the_load(
    artefact: WriteArtefact, load: Load, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv(VARIABLES["precision"], wrong)
    expected = (
        f"{VARIABLES['precision']} must be one of auto, float32, bfloat16, float16, int8, "
        f"not '{wrong}'"
    )
    with pytest.raises(LoadError, match=expected):
        load(artefact())
