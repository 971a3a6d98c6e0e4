"""Connects the Python client to the server of a configuration."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from serving.config import Config
from serving.gateway.credentials import Credentials
from vision_client import Client


def bypass_proxy(config: Config) -> None:
    """Add the server's host to ``no_proxy``, so that it is reached directly."""
    hosts = [
        os.environ.get("no_proxy") or os.environ.get("NO_PROXY"),
        urlsplit(config.local_inference).hostname,
    ]
    os.environ["no_proxy"] = ",".join(filter(None, hosts))


def connect(config: Config, *, timeout: float, retries: int = 0) -> Client:
    """A client for the server of ``config``; ``timeout`` in seconds.

    It uses the first of the server's API keys, and trusts the authority that `make cert` writes
    beside the server's certificate. Raises ServingError if the keys cannot be read.
    """
    credentials = Credentials.of(config)
    clients = credentials.clients()
    authority = credentials.certificate and credentials.certificate[0].with_name("ca.pem")
    return Client(
        config.local_inference,
        token=clients[0].key if clients else None,
        ca=authority if authority and authority.is_file() else None,
        timeout=timeout,
        retries=retries,
    )
