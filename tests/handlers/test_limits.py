"""The YAML's section ``handler`` changes limits, and a mistake in it fails the load."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from handlers.errors import LoadError
from handlers.pictures.limits import LIMITS, Limits
from handlers.settings import Settings
from handlers.torchserve import Handler

Load = Callable[..., Handler]


def test_without_a_section_the_defaults_hold() -> None:
    assert Settings.from_yaml({}) == Settings.from_yaml({"handler": None}) == Settings()
    assert Settings.from_yaml({"batchSize": 8, "handler": {"limits": {}}}) == Settings(
        LIMITS, "auto"
    )


def test_what_is_named_changes_and_the_rest_stays() -> None:
    limits = {"pixels": 1000, "decode_seconds": 0.5}
    changed = Settings.from_yaml({"handler": {"limits": limits, "precision": "float32"}})
    assert changed == Settings(Limits(pixels=1000, decode_seconds=0.5), "float32")


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ([], "its keys are limits, precision, cpu_batch_pixels"),
        ("limits", "handler must be a map"),
        ({"limit": {}}, "its keys are limits, precision, cpu_batch_pixels"),
        ({"limits": 5}, "limits must be a map"),
        ({"cpu_batch_pixels": 0}, "cpu_batch_pixels must be a whole number above 0, not 0"),
        ({"cpu_batch_pixels": True}, "above 0, not True"),
        ({"precision": "half"}, "precision is one of auto, float32, bfloat16, float16, not 'half'"),
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
def test_mistakes_are_told(handler: object, message: str) -> None:
    if handler == []:
        handler = [1]  # an empty list is no section, as YAML reads `handler:`
    with pytest.raises(ValueError, match=message):
        Settings.from_yaml({"handler": handler})


def test_a_mistake_fails_the_load(model_store: Path, load: Load) -> None:
    yaml = {"handler": {"limits": {"pixels": "many"}}}
    with pytest.raises(LoadError, match="the settings of the model: the limit pixels must be"):
        load(model_store / "resnet101.pt", yaml=yaml)


def test_the_limits_of_the_yaml_are_those_that_hold(
    model_store: Path, load: Load, predict: Callable[..., Any], chelsea: bytes
) -> None:
    yaml = {"handler": {"limits": {"pixels": 14_999}}}
    handler = load(model_store / "resnet101.pt", yaml=yaml)
    ((code, _, body),) = predict(handler, ({"body": chelsea}, {"Host": "h"}))
    assert code == 413
    assert "150x100 = 15000 pixels; the limit is 14999" in json.loads(body)["message"]


def test_bytes_are_counted_before_they_are_looked_at(
    model_store: Path, load: Load, predict: Callable[..., Any], chelsea: bytes
) -> None:
    yaml = {"handler": {"limits": {"request_bytes": len(chelsea)}}}
    handler = load(model_store / "resnet101.pt", yaml=yaml)
    replies = predict(
        handler,
        ({"body": chelsea}, {"Host": "h"}),
        ({"body": bytes(len(chelsea) + 1)}, {"Host": "h"}),
    )
    assert [code for code, _, _ in replies] == [200, 413]
    assert f"more than {len(chelsea)} bytes" in json.loads(replies[1][2])["message"]


def test_a_batch_of_large_inputs_takes_no_more_memory_than_one(
    model_store: Path,
    load: Load,
    predict: Callable[..., Any],
    chelsea: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    yaml = {"handler": {"limits": {"network_pixels": 2 * 64 * 96}}}
    handler = load(model_store / "cyclegan.pt", yaml=yaml)
    together: list[int] = []
    preprocess = handler.service.engine.preprocess

    def counted(pictures: Sequence[Any]) -> Any:
        together.append(len(pictures))
        return preprocess(pictures)

    monkeypatch.setattr(handler.service.engine, "preprocess", counted)
    row = {"data": chelsea, "size": b"64"}
    replies = predict(handler, *[(row, {"Host": "h"})] * 5)
    assert [code for code, _, _ in replies] == [200] * 5
    assert together == [2, 2, 1]


def test_a_batch_that_takes_too_long_to_decode_is_answered_in_part(
    resnet: Handler,
    decoders: Callable[[], list[Any]],  # those that start from now on
    predict: Callable[..., Any],
    chelsea: bytes,
    heavy: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("handlers.service.DECODE_BEGIN_S", 0.3)
    sent = [({"body": picture}, {"Host": "h"}) for picture in (chelsea, *[heavy] * 6)]
    replies = predict(resnet, *sent)
    codes = [code for code, _, _ in replies]
    assert (codes[0], codes[-1]) == (200, 503)
    assert json.loads(replies[-1][2])["type"] == "Overloaded"
    assert set(codes) == {200, 503}, "what has begun is finished"
    assert not decoders(), "no process was replaced"
    assert [code for code, _, _ in predict(resnet, sent[0])] == [200]
