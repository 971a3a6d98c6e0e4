"""The lock names every published checkpoint, by the digests that their publishers give."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from export import weights
from tests.specs import SPECS

# As published: torchvision's file names begin with the same digits; the others are the git-lfs
# objects of the book's repository.
DIGESTS = {
    "resnet101-63fe2227.pth": "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
    "resnet101-cd907fc2.pth": "cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e",
    "horse2zebra_0.4.0.pth": "043afb9bdb059f8423ba772f9b01b5d72dc63f8221989e7750807df6c55d56b4",
    "bobby.jpg": "71d4d4ae4f00f5febb1f178153673bc456d15f305f6d58517679340dcfbf5914",
    "horse.jpg": "478b2b255c74ad18547b6df158a08703d7c5961e89a5c46f2685f820122fff66",
}
ENTRIES = [
    entry
    for model in (*SPECS, "pictures")
    for entry in weights.published(model).values()
]  # fmt: skip


def test_digests_are_the_published_ones() -> None:
    assert {entry.file: entry.sha256 for entry in ENTRIES} == DIGESTS


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.file)
def test_entry_is_complete(entry: weights.Checkpoint) -> None:
    fields = dataclasses.asdict(entry)
    assert all(fields[name] for name in ("file", "url", "source", "licence"))
    assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert urlsplit(entry.url).scheme == "https"
    assert urlsplit(entry.url).path.endswith("/" + entry.file)
    assert entry.model == "pictures" or entry.variant in SPECS[entry.model]


@pytest.mark.parametrize(
    ("model", "names"),
    [("resnet101", ["IMAGENET1K_V1", "IMAGENET1K_V2"]), ("cyclegan", ["horse2zebra"])],
)
def test_default_comes_first(model: str, names: list[str]) -> None:
    assert list(weights.published(model)) == names


def test_size_of_the_book_s_generator() -> None:
    assert weights.published("cyclegan")["horse2zebra"].bytes == 45_519_250


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TORCH_HOME": "/a"}, "/a/hub/checkpoints"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/torch/hub/checkpoints"),
        ({"TORCH_HOME": "/a", "XDG_CACHE_HOME": "/b"}, "/a/hub/checkpoints"),
        ({"HOME": "/c"}, "/c/.cache/torch/hub/checkpoints"),
    ],
)
def test_cache_is_where_torch_hub_has_it(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import hub

    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert weights.cache_folder() == Path(folder) == Path(hub.get_dir()) / "checkpoints"
