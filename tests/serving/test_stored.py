"""The archives of a rollout in the model store, and those that a server holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving.errors import ServingError
from serving.held import Held
from serving.stored import Stored, check_room
from tests.serving.test_versions import planned


@pytest.fixture
def store(tmp_path: Path) -> Stored:
    """A model store with the default a.mar, and new.mar beside it."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "a.mar").write_bytes(b"old")
    (tmp_path / "new.mar").write_bytes(b"new")
    return Stored(folder / "a.mar")


def content(store: Stored) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.default.parent.iterdir()}


def test_a_rollout_and_back(store: Stored, tmp_path: Path) -> None:
    store.take(tmp_path / "new.mar")
    assert content(store) == {"a.mar": b"old", "a@candidate.mar": b"new"}
    store.promote(store.default)
    assert content(store) == {"a.mar": b"new", "a@previous.mar": b"old"}
    store.restore()
    assert content(store) == {"a.mar": b"old"}


def test_a_full_disk_leaves_no_part(
    store: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(ServingError, match="No space left on device"):
        store.take(tmp_path / "new.mar")
    assert content(store) == {"a.mar": b"old"}


def test_a_promotion_that_fails_changes_nothing(store: Stored) -> None:
    store.previous.write_bytes(b"older")
    with pytest.raises(ServingError, match=r"a@candidate\.mar is gone: roll back"):
        store.promote(store.default)
    assert content(store) == {"a.mar": b"old", "a@previous.mar": b"older"}


def test_a_store_without_room(store: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    with pytest.raises(ServingError, match=r"a rollout of .* needs"):
        check_room(store.default, store.default.parent)


def test_an_archive_that_is_replaced_stays_what_it_was(store: Stored, tmp_path: Path) -> None:
    held = Held(tmp_path / "held")
    archive = planned("01", store.default).archive
    held.add(archive)
    (tmp_path / "new.mar").replace(store.default)
    assert store.default.read_bytes() == b"new"
    assert held.path(archive).read_bytes() == b"old"
    held.remove(archive)
    assert list((tmp_path / "held").iterdir()) == []
    held.close()
