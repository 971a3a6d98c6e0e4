"""Which archives are served, and what is wrong with the others, without a real network."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from handlers.request import Integer
from serving.archives import read_archives
from serving.config import Config
from serving.errors import ServingError
from tests.running import MakeConfig
from tests.specs import CYCLEGAN, RESNET101

SEVEN = asdict(replace(RESNET101, labels=tuple("abcdefg")))


def archive(store: Path, name: str, spec: Any, yaml: str = "{}", version: str = "1.0") -> None:
    manifest = {
        "modelName": name, "modelVersion": version, "handler": "h.py", "serializedFile": "a.pt",
        "configFile": "y",
    }  # fmt: skip
    members = {
        "MAR-INF/MANIFEST.json": json.dumps({"model": manifest}),
        "h.py": "",
        "a.pt": "",
        "y": yaml,
        "a.json": json.dumps({"spec": spec}),
    }
    with zipfile.ZipFile(store / f"{name}.mar", "w") as file:
        for member, content in members.items():
            file.writestr(member, content)


@pytest.fixture
def config(tmp_path: Path, make_config: MakeConfig) -> Config:
    return Config.read(make_config(tmp_path, tmp_path))


@pytest.mark.parametrize(
    ("spec", "yaml", "message"),
    [
        ({}, "{}", "a.mar was exported by an older version: run `make export`"),
        (None, "{}", "a.mar is not a complete archive"),
        ({"task": "segment"}, "{}", "has the task 'segment', which cannot be checked"),
        ({"task": "classify"}, "{}", "a.mar was exported by another version: run `make export`"),
        (SEVEN, "handler: {limits: {x: 1}}", r"correct serving=Serving\(...\) in"),
    ],
)
def test_an_archive_that_cannot_be_served(
    config: Config, spec: Any, yaml: str, message: str
) -> None:
    archive(config.model_store, "a", spec, yaml)
    with pytest.raises(ServingError, match=message):
        read_archives(config)


def test_models_by_name(config: Config) -> None:
    for name in ("a", "b", "c"):
        archive(config.model_store, name, SEVEN)
    chosen = config.select(["c", "a.mar", "a", "c"])
    assert [archive.model for archive in read_archives(chosen)] == ["c", "a"]
    with pytest.raises(ServingError, match=r"x.mar does not exist: .* choose from a, b, c"):
        config.select(["a", "x"])


def test_the_options_of_a_model(config: Config) -> None:
    archive(config.model_store, "seven", SEVEN)
    archive(config.model_store, "painter", asdict(CYCLEGAN))
    options = {archive.model: archive.options for archive in read_archives(config)}
    assert options["seven"] == {"top_k": Integer(default=5, low=1, high=7)}
    assert options["painter"]["size"] == Integer(default=256, low=64, high=1024, multiple=4)
