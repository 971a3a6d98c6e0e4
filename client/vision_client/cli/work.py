"""Many photographs at once: results in order, a progress bar, the failures at the end."""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vision_client.answers import Answer
from vision_client.cli.photos import Photo
from vision_client.errors import ConnectionFailed, ServerError, VisionError
from vision_client.show import printable

T = TypeVar("T")

# Photographs started per job, so that one slow answer does not idle the other jobs.
AHEAD = 4
# Errors that do not depend on the photograph: the others would fail in the same way.
UNAUTHORIZED = 401
GENERAL = {301, 302, 303, 307, 308, UNAUTHORIZED, 403, 404}
# Nothing more can be written: the disk is full, or the file of results was replaced.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.ESTALE}


def work(
    photos: Sequence[Photo],
    ask: Callable[[Photo], T],
    report: Callable[[Photo, T], None],
    *,
    jobs: int,
    verb: str,
    skipped: int,
    console: Console,
) -> int:
    """Call ``ask`` for each photograph, ``jobs`` at once, and ``report`` in order with each result.

    Progress and failures go to ``console``. Returns the exit status: 1 if any photograph failed,
    else 0. Stops early if the server cannot be reached or nothing can be written.
    """
    start = time.monotonic()
    failures: list[str] = []
    succeeded = 0
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=len(photos) < 2 or not console.is_terminal,
        redirect_stdout=False,
    )
    try:
        with progress, closing(_in_order(photos, ask, jobs)) as answers:
            for photo, answer in progress.track(answers, len(photos), description=verb):
                try:
                    report(photo, answer.result())
                    succeeded += 1
                except BrokenPipeError:
                    raise  # the reader of standard output has gone
                except (VisionError, OSError, ValueError) as error:  # ValueError: a bad token file
                    failures.append(f"{photo.name}: {_reason(error)}")
                    if _affects_all(error):
                        break
    except KeyboardInterrupt:
        console.print(f"stopped: {verb} {succeeded} of {len(photos)}", highlight=False)
        raise
    for failure in failures:
        _print_failure(failure, console)
    if len(photos) + skipped > 1 or skipped:
        counts = {
            "were there already": skipped,
            "failed": len(failures),
            "not tried": len(photos) - succeeded - len(failures),
        }
        summary = [f"{verb} {succeeded} in {time.monotonic() - start:.1f} s"]
        summary += [f"{count} {what}" for what, count in counts.items() if count]
        console.print(", ".join(summary), highlight=False)
    return 1 if failures else 0


@contextmanager
def exits_on_errors(console: Console) -> Iterator[None]:
    """An error of the server ends the command with exit status 1 and a line on ``console``."""
    try:
        yield
    except (VisionError, OSError, ValueError) as error:  # ValueError: a bad token file
        _print_failure(_reason(error), console)
        raise typer.Exit(1) from error


def _print_failure(reason: str, console: Console) -> None:
    console.print(Text.assemble(("failed", "red"), " ", printable(reason)), soft_wrap=True)


class UntrainedWarning:
    """Warns once, on ``console``, if answers come from an untrained network."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_printed = False

    def check(self, answer: Answer) -> None:
        if answer.untrained and not self._is_printed:
            self._is_printed = True
            message = "untrained networks: everything works, the answers mean nothing"
            self._console.print(f"[yellow]{message}[/]")


def _in_order(
    photos: Sequence[Photo], ask: Callable[[Photo], T], jobs: int
) -> Generator[tuple[Photo, Future[T]]]:
    """Each photograph with its answer or error; closing the generator cancels the rest."""
    pool = ThreadPoolExecutor(jobs)
    waiting: deque[tuple[Photo, Future[T]]] = deque()
    try:
        for photo in photos:
            waiting.append((photo, pool.submit(ask, photo)))
            if len(waiting) == AHEAD * jobs:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _affects_all(error: Exception) -> bool:
    if isinstance(error, ServerError):
        return error.code in GENERAL
    if isinstance(error, OSError):
        return error.errno in UNWRITABLE
    return isinstance(error, ConnectionFailed)


def _reason(error: Exception) -> str:
    """One line, with a remedy if there is an obvious one."""
    if isinstance(error, ConnectionFailed):
        return f"{error}; is it up (`make start`)? --server says which one"
    if isinstance(error, ServerError) and error.code == UNAUTHORIZED:
        return f"{error} (--token-file FILE, or VISION_TOKEN)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
