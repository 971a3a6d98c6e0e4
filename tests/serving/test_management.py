"""The management API: unix socket, keys, replies that are not TorchServe's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.config import Config
from serving.management import Management
from serving.runfolder import RunFolder
from tests.running import MakeConfig, Running
from tests.standin import Answering


@pytest.mark.parametrize("content", [None, "", '{"management": {"key": "abc', "{}"])
def test_a_key_file_that_is_being_written(tmp_path: Path, content: str | None) -> None:
    """TorchServe listens before it has written its tokens."""
    run = RunFolder(tmp_path)
    run.sockets.folder.mkdir()
    if content is not None:
        run.sockets.key_file.write_text(content)
    assert run.token("management") is None
    with pytest.raises(httpx.ConnectError):
        Management.of(run).workers("any")


@pytest.mark.parametrize("reply", [{}, [], [1], "x", None, {"models": [{}]}, {"models": 1}])
def test_a_list_that_is_not_torchserves(reply: Any) -> None:
    with Answering.started(body=json.dumps(reply).encode()) as server:
        management = Management(httpx.Client(base_url=server.url))
        with pytest.raises(httpx.HTTPError, match="as TorchServe does"):
            management.models()


@pytest.mark.parametrize("reply", [{}, [{}], [{"workers": [{}]}], [{"workers": 1}]])
def test_a_description_that_is_not_torchserves(reply: Any) -> None:
    with Answering.started(body=json.dumps(reply).encode()) as server:
        management = Management(httpx.Client(base_url=server.url))
        for ask in (management.workers, management.pending):
            with pytest.raises(httpx.HTTPError, match="as TorchServe does"):
                ask("a")


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://[::]:8080", "http://[::1]:8080"),
        ("http://10.0.0.5:8080", "http://10.0.0.5:8080"),
    ],
)
def test_a_server_on_all_addresses_is_asked_on_loopback(
    make_config: MakeConfig, tmp_path: Path, address: str, local: str
) -> None:
    config = Config.read(make_config(tmp_path, tmp_path, inference_address=address))
    assert (config.inference, config.local_inference) == (address, local)


def test_every_archive_of_the_model_store_is_served(server: Running, model_store: Path) -> None:
    archives = {path.stem for path in model_store.glob("*.mar")}
    assert set(server.management.models()) == archives


def test_describe(server: Running) -> None:
    description = server.management.describe("resnet101")
    assert description["weights"]["name"] == "untrained"
    assert description["device"] == server.management.workers("resnet101")[0].device
    assert description["spec"]["resize"] == 256
    assert len(description["spec"]["labels"]) == 1000
