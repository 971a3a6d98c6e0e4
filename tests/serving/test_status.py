"""`status` against a management API that answers as told, without TorchServe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from serving import commands
from serving.config import Config
from serving.errors import ServingError
from serving.management import Management
from serving.runfolder import RunFolder
from tests.running import MakeConfig
from tests.standin import Answering
from vision_client.health import ModelHealth


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def status(
    make_config: MakeConfig, run: RunFolder, reply: Any, *archives: str, **changes: str
) -> int:
    for name in archives:
        (run.path / f"{name}.mar").touch()
    with Answering.started(body=json.dumps(reply).encode()) as server:
        server.models = None
        changes = {"management_address": server.url, **changes}
        return commands.status(Config.read(make_config(run.path, run.path, **changes)), run)


def listing(*names: str) -> Any:
    """TorchServe's list of models."""

    return {"models": [{"modelName": name} for name in names]}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model that is asked answers."""
    monkeypatch.setattr(Management, "describe", lambda *_, **__: {"spec": {"task": "classify"}})
    monkeypatch.setattr(Management, "workers", lambda *_, **__: [])
    monkeypatch.setattr(commands, "check_model", lambda _, model, __: ModelHealth(model, True))


@pytest.mark.usefixtures("answers")
def test_all_models_answer(
    make_config: MakeConfig, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(make_config, run, listing("a", "b"), "a", "b") == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["a          answers", "b          answers"]


@pytest.mark.usefixtures("answers")
def test_a_missing_model(
    make_config: MakeConfig, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(make_config, run, listing("b", "c"), "a", "b") == 1
    output = capsys.readouterr().out
    assert "a          is missing: the server does not list it" in output
    assert "b          answers" in output
    assert "c          answers" in output


@pytest.mark.usefixtures("answers")
def test_no_model_at_all(
    make_config: MakeConfig, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(make_config, run, listing(), "a") == 1
    assert "a          is missing" in capsys.readouterr().out
    (run.path / "a.mar").unlink()
    with pytest.raises(ServingError, match="no archives in"):
        status(make_config, run, listing())
    assert status(make_config, run, listing("a")) == 0  # a server of another model store


@pytest.mark.usefixtures("answers")
def test_models_that_the_server_was_not_started_with(
    make_config: MakeConfig, run: RunFolder
) -> None:
    """`MODELS=b`: the other archive of the model store is not missing."""
    run.write_state(["b"], ready=True)
    assert status(make_config, run, listing("b"), "a", "b") == 0
    run.clear_state()


def test_a_task_without_a_decoder(
    make_config: MakeConfig,
    run: RunFolder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Management, "describe", lambda *_, **__: {"spec": {"task": "segment"}})
    monkeypatch.setattr(Management, "workers", lambda *_, **__: [])
    assert status(make_config, run, listing("a"), "a") == 1
    assert "has no decoder for the task 'segment'" in capsys.readouterr().out


@pytest.mark.parametrize("reply", [{}, [], [1], "x", None, {"models": [{}]}, {"models": 1}])
def test_another_server_on_the_management_port(
    make_config: MakeConfig, run: RunFolder, capsys: pytest.CaptureFixture[str], reply: Any
) -> None:
    assert status(make_config, run, reply, "a") == 1
    assert "does not answer as TorchServe does" in capsys.readouterr().out


@pytest.mark.parametrize("reply", [{}, [{}], [{"workers": [{}]}], [{"workers": 1}]])
def test_another_server_is_a_request_error(
    make_config: MakeConfig, run: RunFolder, reply: Any
) -> None:
    with Answering.started(body=json.dumps(reply).encode()) as server:
        config = make_config(run.path, run.path, management_address=server.url)
        management = Management(Config.read(config), run)
        for ask in (management.workers, management.pending):
            with pytest.raises(requests.RequestException, match="as TorchServe does"):
                ask("a")
