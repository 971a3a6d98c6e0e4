"""The server's own tools against a server that is not quite there yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from serving.api import Api
from serving.config import Config


@pytest.mark.parametrize("written", [None, "", '{"management": {"key": "abc', "{}"])
def test_a_key_file_that_is_being_written(
    make_config: Any, tmp_path: Path, written: str | None
) -> None:
    """TorchServe opens its ports before it has written its tokens."""
    config = Config.read(make_config(tmp_path, tmp_path, disable_token_authorization="false"))
    key_file = tmp_path / "key_file.json"
    if written is not None:
        key_file.write_text(written)
    api = Api(config, key_file)
    with pytest.raises(requests.ConnectionError):
        api.workers("resnet101")
    assert api.refusal("resnet101", timeout=5) == "no connection"
