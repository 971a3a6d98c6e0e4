"""API keys of the server on Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.ray import access
from deploy.ray.access import Access
from serving.keys import add_key
from serving.refusals import Refused


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.txt"


def refusal(gate: Access, authorization: str) -> Refused:
    with pytest.raises(Refused) as refused, gate.admitted(authorization):
        pass
    return refused.value


def test_without_keys_everybody_may_call() -> None:
    with Access(None).admitted(""):
        pass


def test_a_key_is_needed(keys: Path) -> None:
    key = add_key(keys, "alice")
    gate = Access(keys)
    for scheme in ("Bearer", "bearer"):
        with gate.admitted(f"{scheme} {key}"):
            pass
    for wrong in ("", key, "Bearer", "Bearer nonsense", f"Basic {key}"):
        assert refusal(gate, wrong).code == 401


def test_an_expired_key_is_not_valid(keys: Path) -> None:
    key = add_key(keys, "alice")
    keys.write_text(keys.read_text().replace(key, f"{key} expires=2020-01-31"))
    assert refusal(Access(keys), f"Bearer {key}").code == 401


def test_a_client_has_at_most_its_number_of_requests_at_once(keys: Path) -> None:
    key = add_key(keys, "alice")
    keys.write_text(keys.read_text().replace(key, f"{key} concurrent=1"))
    gate = Access(keys)
    with gate.admitted(f"Bearer {key}"):
        refused = refusal(gate, f"Bearer {key}")
        assert (refused.code, refused.type, refused.retry_after) == (429, "TooManyRequests", 1)
    with gate.admitted(f"Bearer {key}"):
        pass


def test_a_changed_file_counts_at_once_and_a_broken_one_never(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_LOOK_S", -1)
    old = add_key(keys, "alice")
    gate = Access(keys)
    new = add_key(keys, "alice", rotate=True)
    assert refusal(gate, f"Bearer {old}").code == 401
    with gate.admitted(f"Bearer {new}"):
        pass
    keys.write_text("not a line of keys")
    with gate.admitted(f"Bearer {new}"):
        pass
