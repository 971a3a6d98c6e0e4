"""Many pictures at once: in order, with a progress bar, what failed listed at the end."""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vision_client.cli.photos import Photo
from vision_client.errors import ConnectionFailed, ServerError, VisionError
from vision_client.show import printable

T = TypeVar("T")

# Photographs begun for each that is waited for, so that a slow one does not idle the others.
AHEAD = 4
# Not this photograph's fault: the rest would fail in the same way.
HOPELESS = {301, 302, 303, 307, 308, 401, 403, 404}
FULL = {errno.ENOSPC, errno.EDQUOT}
NO_TOKEN = "InvalidKeyException"  # noqa: S105  # TorchServe's name for it, a 400


def work(
    photos: Sequence[Photo],
    ask: Callable[[Photo], T],
    done: Callable[[Photo, T], None],
    *,
    jobs: int,
    verb: str,
    skipped: int,
    console: Console,
) -> int:
    """Call ``ask`` for every photograph, ``jobs`` at once, and ``done`` with each result, in order.

    Progress and failures go to ``console``. Returns the exit status: 0 where all went well, else 1.
    Once the server cannot be reached, or the disk is full, no further one is tried.
    """
    begun = time.monotonic()
    failures: list[str] = []
    good = 0
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
                    done(photo, answer.result())
                    good += 1
                except BrokenPipeError:
                    raise  # nobody reads the rest
                except (VisionError, OSError, ValueError) as error:  # the last of a token's file
                    failures.append(f"{photo.name}: {reason(error)}")
                    if _is_hopeless(error):
                        break
    except KeyboardInterrupt:
        console.print(f"stopped: {verb} {good} of {len(photos)}", highlight=False)
        raise
    for failure in failures:
        text = Text.assemble(("failed", "red"), " ", printable(failure))
        console.print(text, soft_wrap=True)
    if len(photos) + skipped > 1:
        counts = {
            "were there already": skipped,
            "failed": len(failures),
            "not tried": len(photos) - good - len(failures),
        }
        summary = [f"{verb} {good} in {time.monotonic() - begun:.1f} s"]
        summary += [f"{count} {what}" for what, count in counts.items() if count]
        console.print(", ".join(summary), highlight=False)
    return 1 if failures else 0


def _in_order(
    photos: Sequence[Photo], ask: Callable[[Photo], T], jobs: int
) -> Generator[tuple[Photo, Future[T]]]:
    """Each photograph with its answer or error, a few begun ahead; closing it drops the rest."""
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


def _is_hopeless(error: Exception) -> bool:
    if isinstance(error, ServerError):
        return error.code in HOPELESS or error.type == NO_TOKEN
    if isinstance(error, OSError):
        return error.errno in FULL
    return isinstance(error, ConnectionFailed)


def reason(error: Exception) -> str:
    """One line, with what to do where that is known."""
    if isinstance(error, ConnectionFailed):
        return f"{error}; is it up (`make start`)? --server says which one"
    if isinstance(error, ServerError) and error.type == NO_TOKEN:
        return f"{error} (--token-file FILE, or VISION_TOKEN)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
