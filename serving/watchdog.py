"""Replaces workers that hang, and workers that TorchServe no longer starts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx
import psutil

from serving.actions import Action, Actions
from serving.health import Health
from serving.logs import WorkerLog
from serving.management import Management, Worker
from serving.processes import family

# A worker hangs if, for this many seconds, it has had a batch and used no CPU time.
HANG_S = 10.0
# Less CPU time than this, in seconds, counts as none; a worker that computes uses far more.
IDLE_CPU_S = 0.1
# TorchServe announces its next attempt to start a worker as soon as the last one has failed.
GIVEN_UP_S = 5.0


@dataclass
class _Progress:
    """A worker's CPU time in seconds, and when it last grew."""

    cpu: float
    since: float


class Watchdog:
    """Checks the workers, and reports those that compute a batch to ``health``.

    ``wanted`` gives the planned number of workers by key.
    """

    def __init__(
        self,
        wanted: Callable[[], Mapping[str, int]],
        management: Management,
        health: Health,
        actions: Actions,
        cpu_seconds: Callable[[int], float | None] | None = None,
    ) -> None:
        self._wanted = wanted
        self._management = management
        self._health = health
        self._actions = actions
        self._cpu_seconds = cpu_seconds or cpu_seconds_of
        self._progress: dict[int, _Progress] = {}

    def check(self, logs: list[WorkerLog], workers: Mapping[str, list[Worker]]) -> None:
        """Replace workers that hang or stay dead; ``workers`` are those of each version, by key."""
        now = time.monotonic()
        pids = {(key, w.id): w.pid for key, listed in workers.items() for w in listed}
        self._progress = {pid: p for pid, p in self._progress.items() if pid in pids.values()}
        for log in logs:
            pid = pids.get((log.key, log.id))
            if log.busy_since is None:
                if pid is not None:
                    self._progress.pop(pid, None)
            elif pid is not None:
                self._check_progress(log, pid, log.busy_since, now)
        wanted = self._wanted()
        for key in {log.key for log in logs if _given_up(log, now)} & wanted.keys():
            self._scale_again(key, wanted[key])
            for log in logs:
                if log.key == key:
                    log.stopped_since = None

    def _check_progress(self, log: WorkerLog, pid: int, busy_since: float, now: float) -> None:
        cpu = self._cpu_seconds(pid)
        if cpu is None:  # it has just died, which TorchServe notices itself
            return
        progress = self._progress.setdefault(pid, _Progress(cpu, now))
        if abs(cpu - progress.cpu) > IDLE_CPU_S:
            self._progress[pid] = _Progress(cpu, now)
            self._health.worked(log.key)
        elif now - max(progress.since, busy_since) >= HANG_S:
            del self._progress[pid]
            self._actions.record(
                Action.KILL_WORKER,
                f"worker {log.id} (process {pid}) has had a batch for "
                f"{now - busy_since:.0f} s and does not compute: it is killed, "
                "TorchServe starts another",
                log.key,
            )
            with contextlib.suppress(psutil.Error):
                psutil.Process(pid).kill()

    def _scale_again(self, key: str, wanted: int) -> None:
        self._actions.record(
            Action.SCALE_AGAIN,
            "TorchServe has given up starting a worker: all workers are started again",
            key,
        )
        with contextlib.suppress(httpx.HTTPError):
            self._management.scale(key, 0)
            self._management.scale(key, wanted)


def cpu_seconds_of(pid: int) -> float | None:
    """CPU time in seconds of a process and its children; None if it has ended."""
    members = family(pid)
    if not members:
        return None
    seconds = 0.0
    for member in members:
        with contextlib.suppress(psutil.Error):
            times = member.cpu_times()
            seconds += times.user + times.system
    return seconds


def _given_up(log: WorkerLog, now: float) -> bool:
    return log.stopped_since is not None and now - log.stopped_since > GIVEN_UP_S
