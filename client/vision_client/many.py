"""Many pictures: of a folder or an iterable, several at once, with the results in order."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Sized,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from vision_client.answers import Answer
from vision_client.errors import VisionError
from vision_client.folders import below
from vision_client.pictures import Picture, encoded, is_picture

A = TypeVar("A", bound=Answer)
A_co = TypeVar("A_co", bound=Answer, covariant=True)
R = TypeVar("R")

Pictures: TypeAlias = str | os.PathLike[str] | Iterable[Picture]
# Called after each result with the number of results so far and of pictures, None if unknown.
Progress: TypeAlias = Callable[[int, int | None], object]

JOBS = 4  # pictures at once
UNREADABLE = (OSError, TypeError, ValueError)  # the errors of ``encoded``
# Pictures started per job, so that one slow answer does not idle the other jobs.
AHEAD = 4


@dataclass(frozen=True)
class Result(Generic[A_co]):
    """What became of ``picture``: its ``answer``, or the ``error`` because of which it has none.

    ``picture`` is what the iterable gave, or the path of a file of the folder. ``error`` is a
    VisionError, or that of reading or encoding the picture.
    """

    picture: Picture
    answer: A_co | None = None
    error: Exception | None = None

    def get(self) -> A_co:
        """The answer; raises ``error`` if there is none."""
        if self.error is not None:
            raise self.error
        assert self.answer is not None
        return self.answer


def answers(
    ask: Callable[[bytes], A], pictures: Pictures, jobs: int, progress: Progress | None
) -> Generator[Result[A]]:
    """A Result of each picture, in order, of ``jobs`` calls of ``ask`` at once.

    Closing the generator cancels what is not sent yet. OSError if the folder cannot be read,
    TypeError for a single picture, ValueError if ``jobs`` is below 1.
    """
    _check_jobs(jobs)
    chosen, total = _chosen(pictures)

    def result(picture: Picture) -> Result[A]:
        try:
            data = encoded(picture)
        except UNREADABLE as error:
            return Result(picture, error=error)
        try:
            return Result(picture, ask(data))
        except VisionError as error:
            return Result(picture, error=error)

    return _counted(_in_order(chosen, result, jobs), total, progress)


async def answers_async(
    ask: Callable[[bytes], Awaitable[A]], pictures: Pictures, jobs: int, progress: Progress | None
) -> AsyncGenerator[Result[A]]:
    """The same on an event loop."""
    _check_jobs(jobs)
    chosen, total = await asyncio.to_thread(_chosen, pictures)
    turns = asyncio.Semaphore(jobs)

    async def result(picture: Picture) -> Result[A]:
        async with turns:
            try:
                data = await asyncio.to_thread(encoded, picture)
            except UNREADABLE as error:
                return Result(picture, error=error)
            try:
                return Result(picture, await ask(data))
            except VisionError as error:
                return Result(picture, error=error)

    done = 0
    async with aclosing(_in_order_async(chosen, result, jobs)) as results:
        async for one in results:
            done += 1
            if progress is not None:
                progress(done, total)
            yield one


def _counted(
    results: Generator[Result[A]], total: int | None, progress: Progress | None
) -> Generator[Result[A]]:
    with closing(results):
        for done, one in enumerate(results, 1):
            if progress is not None:
                progress(done, total)
            yield one


def _in_order(items: Iterable[Picture], work: Callable[[Picture], R], jobs: int) -> Generator[R]:
    """``work`` of each of ``items`` in threads, at most AHEAD items per job ahead of the caller.

    An error of ``items`` follows the results of those before it.
    """
    pool = ThreadPoolExecutor(jobs)
    room = threading.Semaphore(AHEAD * jobs - 1)
    started: SimpleQueue[Future[R] | None] = SimpleQueue()

    def read() -> None:
        try:
            for item in items:
                room.acquire()
                started.put(pool.submit(work, item))  # RuntimeError if the caller has left
        except BaseException as error:  # noqa: BLE001 - for the caller
            failed: Future[R] = Future()
            failed.set_exception(error)
            started.put(failed)
        started.put(None)

    try:
        # Neither a result nor the end of the process waits for the next item.
        threading.Thread(target=read, daemon=True).start()
        while (future := started.get()) is not None:
            room.release()
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        room.release()


async def _in_order_async(
    items: Iterable[Picture], work: Callable[[Picture], Coroutine[Any, Any, R]], jobs: int
) -> AsyncGenerator[R]:
    """The same in tasks."""
    room = asyncio.Semaphore(AHEAD * jobs - 1)
    started: asyncio.Queue[asyncio.Task[R] | None] = asyncio.Queue()

    async def read() -> None:
        try:
            source = iter(items)
            while found := await asyncio.to_thread(list, islice(source, 1)):
                await room.acquire()
                started.put_nowait(asyncio.create_task(work(found[0])))
        finally:
            started.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await started.get()) is not None:
            room.release()
            yield await task
        await reader  # raises the error of ``items``
    finally:
        left: list[asyncio.Task[Any]] = [reader]
        while not started.empty():
            if task := started.get_nowait():
                left.append(task)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _check_jobs(jobs: int) -> None:
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")


def _chosen(pictures: Pictures) -> tuple[Iterable[Picture], int | None]:
    """The pictures in and below a folder, or those of an iterable, and their number if known."""
    if isinstance(pictures, str | os.PathLike):
        os.scandir(pictures).close()  # raises the OSError that os.walk would pass over
        paths = list(below(Path(pictures)))
        return paths, len(paths)
    if is_picture(pictures):
        raise TypeError("this is one picture, not a folder or an iterable of pictures")
    return pictures, len(pictures) if isinstance(pictures, Sized) else None
