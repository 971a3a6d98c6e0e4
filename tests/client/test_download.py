"""Photographs at addresses: downloaded by the client, within limits."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.client.conftest import PREDICTIONS, invoke, join
from tests.standin import LIMIT_S, Answer, Answering
from vision_client.cli import download as module
from vision_client.cli.download import DownloadFailed, download, file_name, is_address

JPEG = b"\xff\xd8 a photograph"
IMAGE = {"content-type": b"image/jpeg"}


@pytest.fixture
def web() -> Iterator[Answering]:
    """A web server that answers with a photograph."""
    with Answering.started(headers=IMAGE, body=JPEG) as web:
        yield web


def redirect(location: str) -> Answer:
    return Answer(302, {"location": location.encode()}, b"moved")


def test_the_content_without_credentials(
    web: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("VISION_TOKEN", "key")
    web.first = [redirect("b.jpg?size=2")]
    assert download(f"{web.url}/a/a.jpg") == JPEG
    assert web.paths == ["/a/a.jpg", "/a/b.jpg?size=2"]
    assert all("authorization" not in headers for headers in web.asked)
    assert web.asked[0]["user-agent"].startswith("vision-client/")


@pytest.mark.parametrize("kind", [b"application/octet-stream", b"image/webp; x=y"])
def test_a_content_type_that_may_be_a_picture(web: Answering, kind: bytes) -> None:
    web.answer = Answer(200, {"content-type": kind}, JPEG)
    assert download(web.url) == JPEG


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(404, IMAGE, b"no"), "404 Any"),
        (
            Answer(200, {"content-type": b"text/html; charset=utf-8"}, b"<html>"),
            "text/html, not a picture; give the address of the picture itself",
        ),
        (Answer(200, IMAGE, b""), "the answer is empty"),
        (redirect("/again"), "more than 5 redirects"),
        (redirect("file:///etc/passwd"), "file:///etc/passwd is not an http:// or https://"),
        (redirect("http://me:secret@127.0.0.1/"), "an address with a password"),
    ],
)
def test_what_is_not_a_picture(web: Answering, answer: Answer, message: str) -> None:
    web.answer = answer
    with pytest.raises(DownloadFailed, match=message.replace("?", r"\?")):
        download(web.url)


def test_too_large(web: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 2 << 20)
    web.answer = Answer(200, IMAGE, bytes((2 << 20) + 1))
    with pytest.raises(DownloadFailed, match="more than 2 MiB"):
        download(web.url)
    web.answer = Answer(200, IMAGE, bytes(2 << 20))
    assert len(download(web.url)) == 2 << 20


@pytest.mark.parametrize(
    ("limit", "message"), [("SILENCE_S", "sent nothing for 0.2 s"), ("LIMIT_S", "within 0.2 s")]
)
def test_too_slow(monkeypatch: pytest.MonkeyPatch, limit: str, message: str) -> None:
    """Also before the first byte of the answer."""
    monkeypatch.setattr(module, limit, 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DownloadFailed, match=message),
    ):
        download(f"http://127.0.0.1:{silent.getsockname()[1]}/a.jpg")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/a.jpg", "not an http:// or https:// address"),
        ("https:///a.jpg", "not an http:// or https:// address"),
        ("http://host:port/a.jpg", "Port could not be cast"),
        ("https://me:secret@host/a.jpg", "an address with a password"),
        ("http://127.0.0.1:1/a.jpg", "no connection to http://127.0.0.1:1: Connection refused"),
    ],
)
def test_addresses_that_cannot_be_downloaded(url: str, message: str) -> None:
    with pytest.raises(DownloadFailed, match=message):
        download(url)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/a/b.jpg?c=/d.png#e", "b.jpg"),
        ("https://host:1/", "host:1"),
        ("https://host/..", "host"),
        ("https://host/%2e%2e%2fb.jpg", "%2e%2e%2fb.jpg"),
    ],
)
def test_the_name_of_a_file(url: str, name: str) -> None:
    assert file_name(url) == name


def test_paths_are_not_addresses() -> None:
    assert is_address("HTTPS://host/a.jpg")
    assert not any(map(is_address, ("-", "a.jpg", "a/b://c.jpg", "C:/a.jpg", "://a")))


def test_addresses_beside_files(
    web: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed download is one failure; a repeated command downloads only that one again."""
    (tmp_path / "a.jpg").write_bytes(b"a file")
    good, bad = f"{web.url}/good.jpg", "http://127.0.0.1:1/bad.jpg"
    results = tmp_path / "results.jsonl"
    with Answering.started(headers={"x-model-weights": b"w"}, body=PREDICTIONS) as server:
        monkeypatch.setenv("VISION_SERVER", server.url)
        arguments = ["classify", good, bad, str(tmp_path), "-o", str(results)]
        run = invoke(*arguments)
        assert run.exit_code == 1
        assert f"failed {bad}: no connection to http://127.0.0.1:1" in run.stderr
        again = invoke(*arguments)
        assert "2 were there already, 1 failed" in again.stderr
    pictures = [json.loads(line)["picture"] for line in results.read_text().splitlines()]
    assert pictures == [good, f"{tmp_path}/a.jpg"]
    assert web.paths == ["/good.jpg"]


def test_a_translation_has_the_name_in_the_address(
    web: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Answering.started(body=b"\x89PNG and more") as server:
        monkeypatch.setenv("VISION_SERVER", server.url)
        address = f"{web.url}/stable/horse.jpg?width=640"
        run = invoke("translate", address, "-o", tmp_path / "out")
    assert run.exit_code == 0
    assert (tmp_path / "out" / "horse.png").exists()


def test_an_empty_folder_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with Answering.started(body=PREDICTIONS) as server:
        run = invoke("classify", tmp_path, "-s", server.url)
        assert server.asked == []
    assert run.exit_code == 1
    assert f"failed {tmp_path}: no photographs in this folder: no file ends in .avif" in run.stderr


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("localhost", False),
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("::ffff:192.168.0.1", False),
        ("2130706433", False),  # 127.0.0.1 as one number
        ("host.invalid", True),
        ("a..b", True),
    ],
)
def test_public_addresses(host: str, public: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def offline(host: str, *arguments: Any, **options: Any) -> Any:
        if "inv" in host:
            raise socket.gaierror("no such host")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    assert module._is_public(host) == public


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("https://8.8.8.8/a", "http://8.8.8.8/a", "redirected from https to http://8.8.8.8/a"),
        ("http://8.8.8.8/a", "http://[::1]/a", r"public address redirects to http://\[::1\]/a"),
        ("http://8.8.8.8/a", "https://9.9.9.9/a", None),
        ("http://10.0.0.1/a", "http://10.0.0.2/a", None),
    ],
)
def test_where_redirects_may_lead(start: str, end: str, message: str | None) -> None:
    with pytest.raises(DownloadFailed, match=message) if message else nullcontext():
        module._check_redirect(urlsplit(start), end)


def test_redirects_are_checked(web: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_public", lambda host: host == "127.0.0.1")
    web.first = [redirect(web.url.replace("127.0.0.1", "localhost"))]
    with pytest.raises(DownloadFailed, match="public address redirects to http://localhost"):
        download(web.url)
    assert len(web.paths) == 1


@pytest.mark.parametrize(
    ("limit", "message"),
    [("SILENCE_S", "ended after 0 bytes: .*timed out"), ("LIMIT_S", "within 0.4 s")],
)
def test_a_body_that_does_not_end(
    monkeypatch: pytest.MonkeyPatch, limit: str, message: str
) -> None:
    """The connection ends, too, also if bytes arrive all the time."""
    monkeypatch.setattr(module, limit, 0.4)
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n")
            while limit == "LIMIT_S":
                connection.sendall(b"x")
                time.sleep(0.01)
            connection.settimeout(LIMIT_S)
            connection.recv(1)
        ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(DownloadFailed, match=message):
            download(f"http://127.0.0.1:{listening.getsockname()[1]}/a.jpg")
        assert ended.wait(5)
        join(thread)
