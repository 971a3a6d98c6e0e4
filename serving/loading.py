"""Loads a further version of a model beside the others, and unloads one that is no longer used."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import psutil

from serving.errors import ServingError
from serving.health import Health
from serving.held import Held, file_name
from serving.logs import ServerLogs
from serving.machine import free_memory
from serving.management import Management
from serving.plan import ModelPlan
from serving.processes import family
from serving.runfolder import RunFolder
from serving.versions import Served

POLL_S = 0.25
REPORT_EVERY_S = 5
# As of a start.
LOAD_TIMEOUT_S = 300
# Added to the longest time of an answer.
DRAIN_SPARE_S = 10
# TorchServe writes a worker's traceback through another pipe than its end.
_TRACEBACK_S = 1.0


class Progress:
    """What a command is told while it waits. ``check`` raises ServingError if it should end."""

    def __init__(self, say: Callable[[str], None], check: Callable[[], None]) -> None:
        self.say = say
        self.check = check


@dataclass(frozen=True)
class Loader:
    """Loads and unloads versions of the server of ``run``; ServingError if that fails.

    ``retiring`` are the keys of those that are to be unloaded after their last answer.
    """

    run: RunFolder
    served: Served
    health: Health
    management: Management
    held: Held
    retiring: set[str] = field(default_factory=set)

    def check_memory(self, planned: ModelPlan) -> None:
        """ServingError unless the workers of ``planned`` fit beside the present ones."""
        default = self.served.default(planned.model)
        with refused_by_torchserve("say how many workers there are"):
            workers = self.management.workers(default.key)
        grown = planned.archive.path.stat().st_size - self.held.path(default.archive).stat().st_size
        each = max((memory_of(worker.pid) for worker in workers), default=0) + max(grown, 0)
        need, free = planned.workers * each, free_memory()
        if need > free:
            raise ServingError(
                f"{planned.key} would take {need / 2**20:.0f} MiB of memory, as {default.key} does "
                f"({planned.workers} worker(s)), and {free / 2**20:.0f} MiB are free: free some, "
                f"or serve it with the next start, which ends {default.version} first"
            )

    def load(self, planned: ModelPlan, progress: Progress) -> None:
        """Load ``planned``, and wait until all of its workers and its canary have answered.

        If that fails, it is unloaded again.
        """
        try:
            self.held.add(planned.archive)
            self.health.add(planned.key, planned.workers)
            self.served.set_loading(planned)
            logs = ServerLogs(self.run.logs)
            with refused_by_torchserve(f"load {planned.key}"):
                self.management.register(file_name(planned.archive), planned.workers)
            self._wait(planned, logs, progress)
        except BaseException:
            self.served.set_loading(None)
            self.unload(planned)
            raise

    def unload(self, planned: ModelPlan) -> None:
        """End the workers of a version that no request may name any more."""
        self.health.remove(planned.key)
        with contextlib.suppress(httpx.HTTPError):
            self.management.unregister(planned.key)
        self.held.remove(planned.archive)

    def retire(self, planned: ModelPlan, queued_s: float, progress: Progress) -> None:
        """The same, when the requests that it still has are answered.

        One that names it may wait in the queue for at most ``queued_s`` seconds before.
        """
        longest = time.monotonic() + queued_s + planned.response_timeout + DRAIN_SPARE_S
        reported = time.monotonic()
        while (left := self.served.present(planned.key)) and time.monotonic() < longest:
            if time.monotonic() - reported > REPORT_EVERY_S:
                reported = time.monotonic()
                progress.say(f"{planned.key}: {left} request(s) are being answered")
            time.sleep(POLL_S)
        self.unload(planned)
        self.retiring.discard(planned.key)
        progress.say(f"{planned.key}: unloaded")

    def _wait(self, planned: ModelPlan, logs: ServerLogs, progress: Progress) -> None:
        key = planned.key
        started = reported = time.monotonic()
        while not self.health.is_ready(key):
            progress.check()
            now = time.monotonic()
            if logs.find_failure(key.__eq__):
                time.sleep(_TRACEBACK_S)
                if failure := logs.find_failure(key.__eq__):
                    raise ServingError(
                        f"{key} cannot be loaded: {failure.line}\n{failure.output}".rstrip()
                    )
            if reason := self.health.failure(key):
                raise ServingError(f"{key} does not answer: {reason}")
            if now - started > LOAD_TIMEOUT_S:
                raise ServingError(f"{key} does not answer after {LOAD_TIMEOUT_S} s")
            if now - reported > REPORT_EVERY_S:
                reported = now
                progress.say(f"{key}: loading, {now - started:.0f} s")
            time.sleep(POLL_S)
        progress.say(f"{key}: answers after {time.monotonic() - started:.1f} s")


def memory_of(pid: int) -> int:
    """Bytes of a worker and its decode processes; what several share is counted once."""
    taken = 0
    for each in family(pid):
        with contextlib.suppress(psutil.Error):
            memory = each.memory_full_info()
            taken += getattr(memory, "pss", memory.uss)  # Linux alone has the former
    return taken


@contextlib.contextmanager
def refused_by_torchserve(what: str) -> Iterator[None]:
    """Turn a failed request to the management API into a ServingError."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise ServingError(f"TorchServe does not {what}: {error.response.text}") from error
    except httpx.HTTPError as error:
        raise ServingError(f"TorchServe does not {what}: {error}") from error
