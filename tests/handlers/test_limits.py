"""Limits of a model's YAML apply to requests and batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from handlers.pictures.pool import Pixels
from handlers.torchserve import Handler
from tests.handlers.support import Decoders, Load, Predict, body, form


def test_a_limit_of_the_yaml_applies(
    model_store: Path, load: Load, predict: Predict, chelsea: bytes
) -> None:
    limits = {"pixels": 14_999, "request_bytes": len(chelsea)}
    handler = load(model_store / "resnet101.pt", yaml={"handler": {"limits": limits}})
    large = bytes(len(chelsea) + 1)  # no picture: the bytes are counted first
    replies = predict(handler, body(chelsea), body(large))
    assert [code for code, _, _ in replies] == [413, 413]
    messages = [json.loads(text)["message"] for _, _, text in replies]
    assert "150x100 = 15000 pixels; the limit is 14999" in messages[0]
    assert f"more than {len(chelsea)} bytes" in messages[1]


def test_a_batch_of_large_inputs_takes_no_more_memory_than_one_input(
    model_store: Path,
    load: Load,
    predict: Predict,
    chelsea: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    yaml = {"handler": {"limits": {"network_pixels": 2 * 64 * 96}}}
    handler = load(model_store / "cyclegan.pt", yaml=yaml)
    sizes: list[int] = []
    preprocess = handler.service.engine.preprocess

    def counted(pictures: Sequence[Pixels]) -> torch.Tensor:
        sizes.append(len(pictures))
        return preprocess(pictures)

    monkeypatch.setattr(handler.service.engine, "preprocess", counted)
    replies = predict(handler, *[form(data=chelsea, size=b"64")] * 5)
    assert [code for code, _, _ in replies] == [200] * 5
    assert sizes == [2, 2, 1]


def test_a_batch_that_takes_too_long_to_decode_is_answered_in_part(
    resnet: Handler,
    decoders: Decoders,
    predict: Predict,
    chelsea: bytes,
    heavy: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("handlers.service.DECODE_BEGIN_S", 0.3)
    replies = predict(resnet, *map(body, (chelsea, *[heavy] * 6)))
    codes = [code for code, _, _ in replies]
    assert (codes[0], codes[-1]) == (200, 503)
    assert json.loads(replies[-1][2])["type"] == "Overloaded"
    assert set(codes) == {200, 503}, "a picture that has begun is finished"
    assert not decoders(), "no process was replaced"
    assert [code for code, _, _ in predict(resnet, body(chelsea))] == [200]
