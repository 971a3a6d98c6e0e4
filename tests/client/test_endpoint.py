"""Server URLs, valid and invalid, and the range of ``timeout``."""

from __future__ import annotations

import pytest

from vision_client import AsyncClient, Client
from vision_client.endpoint import Endpoint


@pytest.mark.parametrize(
    ("url", "normalised"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("https://models.example/vision/", "https://models.example:443/vision"),
        ("http://models.example", "http://models.example:80"),
        ("grpc://[::1]", "grpc://[::1]:7070"),
        ("grpcs://models.example", "grpcs://models.example:443"),
    ],
)
def test_urls(url: str, normalised: str) -> None:
    endpoint = Endpoint.parse(url)
    assert str(endpoint) == normalised
    assert endpoint.prediction("model") == f"{normalised}/predictions/model"


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8080", "localhost", "ftp://host", "http://", "http://h:99999", "http://h?x"],
)
def test_invalid_urls(url: str) -> None:
    with pytest.raises(ValueError, match=r"looks like http://127|out of range"):
        Client(url)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("127.1.2.3", True), ("[::1]", True),
     ("10.0.0.1", False), ("models.example", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert Endpoint.parse(f"http://{host}").is_loopback is loopback


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
@pytest.mark.parametrize("timeout", [0.0, -1.0, 86_401.0, 1e300, float("inf"), float("nan")])
def test_a_timeout_out_of_range(client_class: type[Client | AsyncClient], timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be above 0 and at most 86400 s, not"):
        client_class(timeout=timeout)
