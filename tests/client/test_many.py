"""classify_many and translate_many: order, bounds, folders, and errors of single pictures."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, closing
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.client.conftest import OVER_GRPC, OVER_HTTP, Kind
from tests.standin import LIMIT_S, Answer, Answering
from vision_client import AsyncClient, Client, ServerError
from vision_client.many import AHEAD

JOBS = 3
BAD = json.dumps({"code": 400, "type": "BadImage", "message": "damaged"}).encode()


class Echo(Answering):
    """Answers with its picture as the label, early ones last; refuses the picture ``bad``."""

    def __init__(self) -> None:
        super().__init__(Answer())
        self.together = threading.Barrier(JOBS)  # as many requests at once as there are jobs
        self.running = self.most = 0
        self.lock = threading.Lock()

    def reply(self, path: str, headers: Message, content: bytes) -> Answer:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        if content in (b"0", b"1", b"2"):
            self.together.wait(LIMIT_S)
            time.sleep(0.05 * (2 - int(content)))
        with self.lock:
            self.running -= 1
        if content == b"bad":
            return Answer(400, {}, BAD)
        best = {"class_id": 1, "label": content.decode(), "probability": 0.5}
        return Answer(200, {}, json.dumps({"predictions": [best]}).encode())


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo().listening() as server:
        assert isinstance(server, Echo)
        yield server


@OVER_HTTP
def test_results_are_in_order_and_errors_do_not_end_the_rest(
    kind: Kind, echo: Echo, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.jpg"
    pictures: list[Any] = [b"0", b"1", b"2", b"bad", missing, 12]
    pictures += [b"%d" % i for i in range(6, 20)]
    counted: list[tuple[int, int | None]] = []
    results = list(
        kind.make(echo.url).classify_many(
            pictures, model="mine", jobs=JOBS, progress=lambda *count: counted.append(count)
        )
    )
    assert [result.picture for result in results] == pictures
    assert counted == [(i + 1, len(pictures)) for i in range(len(pictures))]
    assert echo.most == JOBS
    for picture, result in zip(pictures, results, strict=True):
        if isinstance(picture, bytes) and picture != b"bad":
            assert result.get().best.label == picture.decode()
            assert result.error is None
    refused, lost, wrong = results[3:6]
    assert isinstance(refused.error, ServerError)
    assert isinstance(lost.error, FileNotFoundError)
    assert isinstance(wrong.error, TypeError)
    with pytest.raises(ServerError, match="damaged"):
        refused.get()


@OVER_HTTP
def test_a_folder(kind: Kind, echo: Echo, tmp_path: Path) -> None:
    names = ["b.JPG", "a.png", "below/c.webp", "d.heic", "notes.txt", ".hidden.jpg", ".git/e.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    client = kind.make(echo.url)
    for folder in (tmp_path, str(tmp_path)):
        results = list(client.classify_many(folder, model="mine"))
        found = [tmp_path / name for name in ("a.png", "b.JPG", "d.heic", "below/c.webp")]
        assert [result.picture for result in results] == found
        assert results[3].get().best.label == "below/c.webp"


@OVER_HTTP
def test_translations_have_their_options(kind: Kind) -> None:
    with Answering.started(body=b"\x89PNG and more") as server:
        client = kind.make(server.url)
        (result,) = client.translate_many([b"x"], model="mine", size=64, format="jpg", quality=80)
    assert result.get().data == server.answer.body
    (sent,) = server.asked
    assert (sent["x-size"], sent["x-format"], sent["x-quality"]) == ("64", "jpeg", "80")


@OVER_HTTP
@pytest.mark.parametrize(
    ("pictures", "jobs", "error"),
    [
        (b"one picture", 1, TypeError),
        (Image.new("RGB", (4, 4)), 1, TypeError),
        (np.zeros((4, 4), np.uint8), 1, TypeError),
        (np.zeros((4, 4, 3), np.uint8), 1, TypeError),
        ("nowhere", 1, FileNotFoundError),
        (__file__, 1, NotADirectoryError),
        ([b"x"], 0, ValueError),
    ],
)
def test_wrong_arguments(kind: Kind, pictures: object, jobs: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        kind.make("http://127.0.0.1:9").classify_many(pictures, jobs=jobs)  # type: ignore[arg-type]


@OVER_GRPC
def test_a_mistake_of_the_caller_is_raised(kind: Kind) -> None:
    """It is no error of a picture: here no model is named."""
    with pytest.raises(ValueError, match="name the model"):
        list(kind.make("grpc://127.0.0.1:9").classify_many([b"x", b"y"]))


def endless(pulled: list[int]) -> Iterator[bytes]:
    while True:
        pulled.append(len(pulled))
        yield b"%d" % (100 + len(pulled))


def test_an_iterable_is_read_as_needed(echo: Echo) -> None:
    """The caller gets results although it never ends, and may stop."""
    pulled: list[int] = []
    with Client(echo.url) as client:
        results = client.classify_many(endless(pulled), model="mine", jobs=JOBS)
        with closing(results):
            labels = [next(results).get().best.label for _ in range(20)]
    assert labels == [str(i) for i in range(101, 121)]
    assert len(pulled) <= 20 + AHEAD * JOBS
    assert echo.most <= JOBS


def test_an_iterable_is_read_as_needed_on_an_event_loop(echo: Echo) -> None:
    pulled: list[int] = []

    async def labels() -> list[str]:
        async with (
            AsyncClient(echo.url) as client,
            aclosing(client.classify_many(endless(pulled), model="mine", jobs=JOBS)) as results,
        ):
            found = [(await anext(results)).get().best.label for _ in range(20)]
        assert len(asyncio.all_tasks()) == 1  # the rest is cancelled
        return found

    assert asyncio.run(labels()) == [str(i) for i in range(101, 121)]
    assert len(pulled) <= 20 + AHEAD * JOBS
    assert echo.most <= JOBS


class Source:
    """Gives ``count`` pictures, and fails at the next one, for which it waits if it is slow."""

    def __init__(self, count: int, is_slow: bool) -> None:
        self.count = count
        self.more = threading.Event()
        if not is_slow:
            self.more.set()

    def __iter__(self) -> Iterator[bytes]:
        yield from (b"%d" % (100 + i) for i in range(self.count))
        assert self.more.wait(LIMIT_S)
        raise RuntimeError("no more pictures")


SOURCES = pytest.mark.parametrize(
    ("count", "is_slow"), [(0, False), (1, True), (2, True), (10, False), (10, True)]
)


@SOURCES
def test_no_result_waits_for_the_next_picture(echo: Echo, count: int, is_slow: bool) -> None:
    """Nor is one lost if the iterable fails."""
    source = Source(count, is_slow)
    with Client(echo.url) as client, closing(client.classify_many(source, model="mine")) as results:
        for i in range(count):
            assert next(results).picture == b"%d" % (100 + i)
        source.more.set()
        with pytest.raises(RuntimeError, match="no more"):
            next(results)


@SOURCES
def test_no_result_waits_for_the_next_picture_on_an_event_loop(
    echo: Echo, count: int, is_slow: bool
) -> None:
    source = Source(count, is_slow)

    async def check() -> None:
        async with (
            AsyncClient(echo.url) as client,
            aclosing(client.classify_many(source, model="mine")) as results,
        ):
            for i in range(count):
                assert (await anext(results)).picture == b"%d" % (100 + i)
            source.more.set()
            with pytest.raises(RuntimeError, match="no more"):
                await anext(results)

    asyncio.run(check())
