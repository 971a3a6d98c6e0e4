"""The verified download, against a real server that misbehaves on order."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep

import pytest

from export.errors import ExportError, WeightsUnavailable
from export.weights import CHUNK, Download, fetch

PAYLOAD = random.Random(0).randbytes(5 * CHUNK + 1000)
WRONG = bytes(len(PAYLOAD))
FLOOD = 40
DEADLINE_S = 30


@dataclass
class Publisher:
    """What the server does with each request in turn, and the Range headers that it saw.

    A step is a status to answer with, ``"break"`` (the connection ends after one CHUNK),
    ``"no range"``, ``"no length"`` (chunked, without Content-Length), ``"flood"`` (the same with
    FLOOD times the payload), or ``"hold"`` (one CHUNK, and the rest once ``released`` is set);
    after the last step it behaves. ``sent`` counts the bytes of bodies without a length.
    """

    url: str = ""
    payload: bytes = PAYLOAD
    steps: list[int | str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    sent: int = 0


def _handler(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            publisher.ranges.append(wanted)
            step = publisher.steps.pop(0) if publisher.steps else ""
            if isinstance(step, int):
                self._answer(step, b"")
                return
            if step in ("no length", "flood"):
                self._stream(publisher.payload * (FLOOD if step == "flood" else 1))
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            if not wanted or step == "no range":
                self._answer(200, publisher.payload, broken=step == "break", held=step == "hold")
            elif start >= len(publisher.payload):
                self._answer(416, b"")
            else:
                self._answer(206, publisher.payload[start:], broken=step == "break")

        def _answer(
            self, status: int, body: bytes, *, broken: bool = False, held: bool = False
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.close_connection = True
            with contextlib.suppress(ConnectionError):  # the client has left
                self.wfile.write(body[:CHUNK])
                if held:
                    publisher.released.wait(DEADLINE_S)
                if not broken:
                    self.wfile.write(body[CHUNK:])

        def _stream(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            with contextlib.suppress(ConnectionError):  # the client has left
                for begin in range(0, len(body), CHUNK):
                    piece = body[begin : begin + CHUNK]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    publisher.sent += len(piece)
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: object) -> None:
            """Not a line per request among the test's output."""

    return Handler


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("export.weights.time.sleep", lambda _: None)
    publisher = Publisher()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(publisher)) as server:
        publisher.url = f"http://127.0.0.1:{server.server_port}/mine.pth"
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield publisher
        server.shutdown()


@pytest.fixture
def download(publisher: Publisher) -> Download:
    digest = hashlib.sha256(PAYLOAD).hexdigest()
    return Download("mine.pth", publisher.url, digest, len(PAYLOAD))


def _names(folder: Path) -> list[str]:
    """All but the lock, which stays."""
    return [file.name for file in folder.iterdir() if file.name != ".lock"]


@pytest.mark.parametrize("size", [None, len(PAYLOAD)])
def test_download_is_verified_and_takes_its_place(
    download: Download, size: int | None, tmp_path: Path
) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    path = fetch(dataclasses.replace(download, bytes=size), folder)
    assert path == folder / "mine.pth"
    assert path.read_bytes() == PAYLOAD
    assert _names(folder) == ["mine.pth"]


def test_cached_file_needs_no_request(
    download: Download, publisher: Publisher, tmp_path: Path
) -> None:
    (tmp_path / "mine.pth").write_bytes(PAYLOAD)
    assert fetch(download, tmp_path).read_bytes() == PAYLOAD
    assert publisher.ranges == []


def test_broken_download_is_resumed_where_it_stopped(
    download: Download, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.steps = ["break", "break", "break"]
    assert fetch(download, tmp_path).read_bytes() == PAYLOAD
    assert publisher.ranges == [None, *(f"bytes={n * CHUNK}-" for n in (1, 2, 3))]


def test_what_a_failed_run_got_is_not_fetched_again(
    download: Download, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.steps = ["break", "break", "break", "break"]
    with pytest.raises(WeightsUnavailable):
        fetch(download, tmp_path)
    assert _names(tmp_path) == ["mine.pth.part"]
    assert fetch(download, tmp_path).read_bytes() == PAYLOAD
    assert publisher.ranges[-1] == f"bytes={4 * CHUNK}-"
    assert _names(tmp_path) == ["mine.pth"]


@pytest.mark.parametrize("digits", [8, 10])
def test_the_first_digits_of_a_digest_are_checked(
    download: Download, digits: int, tmp_path: Path
) -> None:
    """torchvision publishes no more of them."""
    short = dataclasses.replace(download, sha256=download.sha256[:digits], bytes=None)
    assert fetch(short, tmp_path).read_bytes() == PAYLOAD
    (tmp_path / "mine.pth").write_bytes(WRONG)
    with pytest.raises(ExportError, match=f"not the published {short.sha256}:"):
        fetch(short, tmp_path)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_server_error_is_tried_again(
    download: Download, publisher: Publisher, status: int, tmp_path: Path
) -> None:
    publisher.steps = [status]
    assert fetch(download, tmp_path).read_bytes() == PAYLOAD
    assert len(publisher.ranges) == 2


def test_whole_part_needs_no_more_bytes(
    download: Download, publisher: Publisher, tmp_path: Path
) -> None:
    """A process killed between the last byte and the rename; the server answers 416."""
    (tmp_path / "mine.pth.part").write_bytes(PAYLOAD)
    assert fetch(download, tmp_path).read_bytes() == PAYLOAD
    assert publisher.ranges == [f"bytes={len(PAYLOAD)}-"]


def test_server_without_ranges_restarts_the_file(
    download: Download, publisher: Publisher, tmp_path: Path
) -> None:
    (tmp_path / "mine.pth.part").write_bytes(PAYLOAD[:1234])
    publisher.steps = ["no range"]
    assert fetch(download, tmp_path).read_bytes() == PAYLOAD
    assert publisher.ranges == ["bytes=1234-"]


@pytest.mark.parametrize("size", [None, len(PAYLOAD)])
def test_wrong_bytes_are_refused_and_not_kept(
    download: Download, publisher: Publisher, size: int | None, tmp_path: Path
) -> None:
    publisher.payload = WRONG
    with pytest.raises(ExportError) as refusal:
        fetch(dataclasses.replace(download, bytes=size), tmp_path)
    for named in ("mine.pth", download.sha256, hashlib.sha256(WRONG).hexdigest()):
        assert named in str(refusal.value)
    assert _names(tmp_path) == []


@pytest.mark.parametrize("part", [WRONG[:1000], PAYLOAD + b"and more"], ids=["other", "too long"])
def test_wrong_part_does_not_stay_in_the_way(
    download: Download, part: bytes, tmp_path: Path
) -> None:
    (tmp_path / "mine.pth.part").write_bytes(part)
    with pytest.raises(ExportError, match=r"mine\.pth"):
        fetch(download, tmp_path)
    assert fetch(download, tmp_path).read_bytes() == PAYLOAD


def test_wrong_size_is_refused(download: Download, publisher: Publisher, tmp_path: Path) -> None:
    publisher.payload = PAYLOAD[:-1]
    with pytest.raises(ExportError, match=rf"{len(PAYLOAD) - 1} bytes, not {len(PAYLOAD)}"):
        fetch(download, tmp_path)
    assert _names(tmp_path) == []


def test_wrong_cached_file_is_refused_and_left_alone(
    download: Download, publisher: Publisher, tmp_path: Path
) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(WRONG)
    with pytest.raises(ExportError) as refusal:
        fetch(download, tmp_path)
    for named in (path, download.sha256, hashlib.sha256(WRONG).hexdigest()):
        assert str(named) in str(refusal.value)
    assert path.read_bytes() == WRONG
    assert publisher.ranges == []


def test_missing_page_is_not_tried_again(
    download: Download, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.steps = [404]
    with pytest.raises(WeightsUnavailable, match="404"):
        fetch(download, tmp_path)
    assert len(publisher.ranges) == 1
    assert _names(tmp_path) == []


def test_download_without_a_length_is_verified(
    download: Download, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.steps = ["no length"]
    path = fetch(dataclasses.replace(download, bytes=None), tmp_path)
    assert path.read_bytes() == PAYLOAD


@pytest.mark.parametrize("step", ["flood", ""], ids=["without a length", "by its length"])
@pytest.mark.parametrize("size", [None, 2 * CHUNK], ids=["unknown size", "known size"])
def test_download_ends_at_the_largest_size(
    download: Download,
    publisher: Publisher,
    step: str,
    size: int | None,
    tmp_path: Path,
) -> None:
    publisher.steps = [step]
    with pytest.raises(ExportError, match=rf"more than {2 * CHUNK} bytes"):
        fetch(dataclasses.replace(download, bytes=size, max_bytes=2 * CHUNK), tmp_path)
    assert publisher.sent < FLOOD * len(PAYLOAD) / 2
    assert len(publisher.ranges) == 1
    assert _names(tmp_path) == []


def test_two_exports_download_a_file_once(
    download: Download,
    publisher: Publisher,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second waits, says so, and takes what the first has downloaded."""
    publisher.steps = ["hold"]
    said = ""
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(fetch, download, tmp_path)
        _wait_for(lambda: len(publisher.ranges) == 1)
        second = threads.submit(fetch, download, tmp_path)

        def second_is_there() -> bool:
            nonlocal said
            said += capsys.readouterr().err
            return "another export is downloading" in said or len(publisher.ranges) == 2

        try:
            _wait_for(second_is_there)
        finally:
            publisher.released.set()
        paths = {first.result(DEADLINE_S), second.result(DEADLINE_S)}
    assert "another export is downloading" in said
    assert publisher.ranges == [None]
    assert [path.read_bytes() for path in paths] == [PAYLOAD]
    assert _names(tmp_path) == ["mine.pth"]


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        sleep(0.01)


@pytest.fixture
def closed_port() -> Iterator[str]:
    """Bound and not listening: nobody else can take the port, and it refuses."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/mine.pth"


@pytest.mark.usefixtures("publisher")
@pytest.mark.parametrize("where", ["closed port", "unknown host"])
def test_no_network_names_the_file_the_folder_and_what_to_do(
    where: str, closed_port: str, tmp_path: Path
) -> None:
    url = closed_port if where == "closed port" else "http://nowhere.invalid/mine.pth"
    with pytest.raises(WeightsUnavailable) as refusal:
        fetch(Download("mine.pth", url, "0" * 64), tmp_path)
    for named in ("mine.pth", tmp_path, url, "put the file into that folder"):
        assert str(named) in str(refusal.value)
    assert _names(tmp_path) == []


def test_unknown_host_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pauses: list[float] = []
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("export.weights.time.sleep", pauses.append)
    with pytest.raises(WeightsUnavailable):
        fetch(Download("mine.pth", "http://nowhere.invalid/mine.pth", "0" * 64), tmp_path)
    assert pauses == []


def test_folder_that_cannot_be_written_is_named(download: Download, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(ExportError, match=str(blocked)):
        fetch(download, blocked)
