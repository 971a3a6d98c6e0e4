"""Connects the Python client to the server of a configuration."""

from __future__ import annotations

import os

from serving.config import Config
from vision_client import Client


def bypass_proxy(config: Config) -> None:
    """Add the server's host to ``no_proxy``, so that it is reached directly."""
    hosts = [
        os.environ.get("no_proxy") or os.environ.get("NO_PROXY"),
        config.addresses["inference_address"][0],
    ]
    os.environ["no_proxy"] = ",".join(filter(None, hosts))


def connect(config: Config, *, timeout: float, retries: int = 0) -> Client:
    """A client for the server of ``config``; ``timeout`` in seconds."""
    return Client(config.local_inference, timeout=timeout, retries=retries)
