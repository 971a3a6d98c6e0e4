"""Credentials: tokens, redirects, ~/.netrc, proxies."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path

import pytest

from tests.client.conftest import OVER_HTTP, PREDICTIONS, Kind, vision
from tests.standin import Answering
from vision_client import AsyncClient, Client, ServerError
from vision_client.endpoint import Token

# The client takes this for another machine, but Linux connects it to this one.
ELSEWHERE = "0.0.0.0"


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("server", "token", "warned"),
    [
        ("http://models.example", "secret", True),
        ("grpc://10.0.0.1", "secret", True),
        ("http://models.example", lambda: "secret", True),
        ("https://models.example", "secret", False),
        ("grpcs://models.example", "secret", False),
        ("http://127.0.0.1:8080", "secret", False),
        ("grpc://[::1]:7070", "secret", False),
        ("http://localhost", "secret", False),
        ("http://models.example", None, False),
        ("http://models.example", "", False),
    ],
)
def test_a_token_in_plain_text(
    client_class: type[Client | AsyncClient], server: str, token: Token, warned: bool
) -> None:
    """The warning names the server and points to the line that constructed the client."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client_class(server, token=token)
    assert len(caught) == warned
    for warning in caught:
        assert "token is sent without encryption to" in str(warning.message)
        assert "secret" not in str(warning.message)
        assert warning.filename == __file__


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_command_warns_once(tmp_path: Path, scheme: str) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for host, count in ((ELSEWHERE, 1), ("127.0.0.1", 0)):
        server = f"{scheme}://{host}:{port}"
        access = {"VISION_SERVER": server, "VISION_TOKEN": "secret"}
        run = vision("classify", tmp_path, "--model", "mine", **access)
        assert run.returncode == 1
        assert run.stdout == ""
        assert run.stderr.count("token is sent without encryption") == count
        assert "secret" not in run.stderr
        assert ".py" not in run.stderr


@pytest.mark.parametrize("token", ["secret\nx-more: 1", "secret\r", "secrét", "secret\x1b"])
def test_a_token_that_cannot_be_a_header(kind: Kind, token: str) -> None:
    """The error must not contain the token, because errors are logged."""
    with pytest.raises(ValueError, match="a token is one line of ASCII characters") as caught:
        kind.make(f"{kind.scheme}://127.0.0.1:9", token=token).classify(b"x", model="mine")
    assert "secr" not in str(caught.value)


@pytest.mark.parametrize("content", [b"secret\nsecret\n", b"secret\xff"])
def test_a_file_without_a_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    run = vision("classify", "photo.jpg", "--token-file", tmp_path / "token")
    assert run.returncode == 2
    assert "token" in run.stderr
    assert "secret" not in run.stderr


@pytest.mark.parametrize("option", ["--token-file", "--ca"])
def test_a_fifo_is_refused(tmp_path: Path, option: str) -> None:
    """It would be read for each request, and each time wait for a writer."""
    os.mkfifo(tmp_path / "fifo")
    run = vision("classify", "photo.jpg", option, tmp_path / "fifo")
    assert run.returncode == 2
    assert "not a regular file" in run.stderr


@OVER_HTTP
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(kind: Kind, status: int) -> None:
    with (
        Answering.started(body=PREDICTIONS) as other,
        Answering.started(status, {"location": f"{other.url}/x".encode()}) as first,
    ):
        client = kind.make(first.url, token="secret")
        with pytest.raises(ServerError, match=f"redirects to {other.url}/x") as caught:
            client.classify(b"x", model="mine")
        assert caught.value.code == status
        assert len(first.asked) == 1
        assert other.asked == []


@OVER_HTTP
@pytest.mark.parametrize("location", [b"http://[", b"//", b"\xff", b"http://\xc3\x28"])
def test_a_redirect_to_a_malformed_address(kind: Kind, location: bytes) -> None:
    with (
        Answering.started(307, {"location": location}) as first,
        pytest.raises(ServerError, match="307 TemporaryRedirect: the server redirects to"),
    ):
        kind.make(first.url).classify(b"x", model="mine")


@OVER_HTTP
def test_a_redirect_without_a_location(kind: Kind) -> None:
    with Answering.started(304) as first, pytest.raises(ServerError, match="304 NotModified"):
        kind.make(first.url).classify(b"x", model="mine")


def test_a_redirect_ends_the_command(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"x")
    with Answering.started(301, {"location": b"https://models.example/"}) as first:
        run = vision("classify", tmp_path, "--server", first.url, "-j", "1")
    assert run.returncode == 1
    assert "redirects to https://models.example/" in run.stderr
    assert "2 not tried" in run.stderr


@OVER_HTTP
def test_a_netrc_is_not_read(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither with a token nor without one."""
    (tmp_path / "netrc").write_text("default login who password what\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Answering.started(body=PREDICTIONS, host=ELSEWHERE) as server:
        with pytest.warns(match="without encryption"):
            kind.make(server.url, token="secret").classify(b"x", model="mine")
        kind.make(server.url).classify(b"x", model="mine")
    sent = [headers["authorization"] for headers in server.asked]
    assert sent == ["Bearer secret", None]


@OVER_HTTP
def test_the_environments_proxy_is_used_for_other_machines(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Answering.started(body=PREDICTIONS) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "10.0.0.1")
        kind.make("http://models.example").classify(b"x", model="mine")
        assert [headers["host"].removesuffix(":80") for headers in proxy.asked] == [
            "models.example"
        ]
