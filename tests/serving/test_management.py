"""Clients of a server whose tokens are not written yet."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from serving.config import Config
from serving.inference import connect
from serving.management import Management
from serving.runfolder import RunFolder
from tests.running import MakeConfig, Running
from vision_client.health import check_model


@pytest.mark.parametrize("content", [None, "", '{"management": {"key": "abc', "{}"])
def test_a_key_file_that_is_being_written(
    make_config: MakeConfig, tmp_path: Path, content: str | None
) -> None:
    """TorchServe opens its ports before it has written its tokens."""
    config = Config.read(make_config(tmp_path, tmp_path, disable_token_authorization="false"))
    run = RunFolder(tmp_path)
    if content is not None:
        run.key_file.write_text(content)
    with pytest.raises(requests.ConnectionError):
        Management(config, run).workers("any")
    with connect(config, run, timeout=5) as client:
        assert "no connection" in str(check_model(client, "any", "classify").error)


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
    archived = {path.stem for path in model_store.glob("*.mar")}
    assert archived
    assert set(server.management.models()) == archived
    for model in archived:
        assert server.management.describe(model)["name"] == model
