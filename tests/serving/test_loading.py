"""What a rollout checks and undoes, with a stand-in for TorchServe's management API."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from serving import loading
from serving.archives import Archive
from serving.config import Config
from serving.errors import ServingError
from serving.health import Health
from serving.held import Held
from serving.loading import Loader, Progress
from serving.machine import Java, Machine
from serving.management import Management
from serving.plan import ModelPlan, Plan
from serving.replacement import check_replacement
from serving.rollout import Rollouts
from serving.runfolder import RunFolder
from serving.versions import Served, Versions
from serving.workers import Workers
from tests.running import wait_until
from tests.serving.test_versions import planned

WORKER = {"id": "9000", "pid": os.getpid(), "status": "READY", "gpuUsage": "N/A", "gpu": False}


def plan_of(planned: ModelPlan) -> Plan:
    config = Config.read(Path("config.properties"))
    machine = Machine(0, 1, 0, 0, Java(Path("java"), 17), Path())
    return Plan(config, machine, (planned,), {}, (), True, None, 0)


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def loader(tmp_path: Path, asked: list[str]) -> Iterator[Loader]:
    """Of a server whose one worker is this process."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        return httpx.Response(200, json=[{"workers": [WORKER]}])

    (tmp_path / "a.mar").write_bytes(b"old")
    default = planned("01", tmp_path / "a.mar")
    health = Health({default.key: 1})
    held = Held(tmp_path / "held")
    held.add(default.archive)
    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://localhost")
    served = Served([default], health.is_ready)
    yield Loader(RunFolder(tmp_path), served, health, Management(http), held)
    held.close()


def test_memory_is_checked_first(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.mar").write_bytes(b"new")
    candidate = planned("02", tmp_path / "new.mar")
    loader.check_memory(candidate)
    taken = loading.memory_of(os.getpid())
    assert taken > 10 * 2**20
    monkeypatch.setattr(loading, "free_memory", lambda: taken // 2)
    with pytest.raises(ServingError, match=r"a/02 would take \d+ MiB .* are free: free some"):
        loader.check_memory(candidate)


def test_a_store_that_cannot_be_written_switches_back(
    loader: Loader, tmp_path: Path, asked: list[str]
) -> None:
    def broken() -> None:
        raise ServingError("the store is read-only")

    rollouts = Rollouts(None, loader)  # type: ignore[arg-type]
    old, new = loader.served.default("a"), planned("02", tmp_path / "new.mar")
    with pytest.raises(ServingError, match="read-only"):
        rollouts._switch(old, new, broken)
    assert asked == ["PUT /models/a/02/set-default", "PUT /models/a/01/set-default"]


def test_one_rollout_at_a_time(loader: Loader) -> None:
    rollouts = Rollouts(None, loader)  # type: ignore[arg-type]
    with rollouts.lock, pytest.raises(ServingError, match="another rollout or rollback"):
        rollouts.roll_back("a", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "b"}, "holds b, not a"),
        ({"task": "embed"}, "has the task embed, and a answers with classify"),
        ({"version": "01"}, "is version 01 of a, which is loaded already: export other weights"),
        ({"version": "00"}, "is loaded already: `make rollback MODEL=a` serves it again"),
    ],
)
def test_what_is_no_replacement(changes: dict[str, Any], reason: str) -> None:
    versions = Versions(planned("01"), previous=planned("00"))
    archive: Archive = replace(planned("02").archive, **changes)
    with pytest.raises(ServingError, match=reason):
        check_replacement(versions, archive)


def test_a_version_with_less_room_for_requests(loader: Loader, tmp_path: Path) -> None:
    """TorchServe would refuse what the gateway lets through."""
    default = replace(loader.served.default("a"), batch=8)
    loader.served.change("a", default=default)
    archive = replace(planned("02", tmp_path / "new.mar").archive, yaml={"jobQueueSize": 2})
    with pytest.raises(ServingError, match=r"TorchServe have 3 requests .* to give it 10 of a"):
        Rollouts(plan_of(default), loader)._plan(loader.served.of("a"), archive)


def test_a_file_that_was_put_in_the_store_is_named(loader: Loader, tmp_path: Path) -> None:
    rollouts = Rollouts(None, loader)  # type: ignore[arg-type]
    default = loader.served.default("a")
    assert rollouts._of_the_next_start(default) == ""
    (tmp_path / "new.mar").write_bytes(b"new")
    (tmp_path / "new.mar").replace(tmp_path / "a.mar")
    assert "the next start serves" in rollouts._of_the_next_start(default)


def test_a_version_that_torchserve_has_lost_is_loaded_again(loader: Loader, tmp_path: Path) -> None:
    """And hides no other one."""
    registered: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            registered.append(request.url.params["url"])
            return httpx.Response(202, json={})
        if request.url.path.endswith("/01"):
            return httpx.Response(404, json={})
        return httpx.Response(
            200, json=[{"workers": [WORKER]}] if "02" in request.url.path else {"models": []}
        )

    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://localhost")
    loader.served.change("a", previous=planned("02", tmp_path / "new.mar"))
    loader.health.add("a/02", 1)
    workers = Workers(loader.served, Management(http), loader.health, "", lambda *_: None)
    workers.poll(SimpleNamespace(advance=lambda: ""), announce=False)
    assert registered == ["a-01.mar"]
    assert list(workers.by_key) == ["a/02"]


def test_a_version_that_is_still_unloaded(loader: Loader, tmp_path: Path) -> None:
    """Loading it again would meet TorchServe's old registration."""
    said: list[str] = []
    progress = Progress(said.append, lambda: None)
    old, new = loader.served.default("a"), planned("02", tmp_path / "new.mar")
    loader.served.change("a", candidate=new, share=0.5)
    rollouts = Rollouts(plan_of(old), loader)
    again = threading.Thread(target=rollouts.roll_back, args=("a", progress))
    with loader.served.used("a", "02"):
        again.start()
        wait_until(lambda: loader.retiring == {"a/02"}, 5)
        with pytest.raises(ServingError, match="a/02 is still being unloaded: try again"):
            rollouts._plan(loader.served.of("a"), new.archive)
        assert not rollouts.lock.locked(), "the next command need not wait"
        assert "a/02: unloaded" not in said
    again.join(5)
    assert (said[-1], loader.retiring) == ("a/02: unloaded", set())


def test_a_model_that_is_not_served(loader: Loader) -> None:
    with pytest.raises(ServingError, match="there is no model 'b': there are a"):
        Rollouts(None, loader).roll_back("b", None)  # type: ignore[arg-type]
