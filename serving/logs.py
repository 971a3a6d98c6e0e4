"""Reads TorchServe's logs: failed loads, dead and busy workers, which its APIs do not report.

TorchServe restarts a worker that dies while loading for minutes, and /ping does not show it. The
log has the worker's traceback immediately.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# serving/log4j2.xml writes each event as one line with this prefix and escapes line breaks in what
# clients send, so a line that starts with it is TorchServe's own.
_PREFIX = r"^[\d-]+T[\d:,]+ \[[A-Z]+ *\] "
_WORKER = (
    _PREFIX
    + r"(?P<worker>W-\d+-(?P<model>\S+)_(?P<version>[\da-f.]+)) "
    + r"org\.pytorch\.serve\.wlm\.WorkerThread - "
)
_STATE = re.compile(_WORKER + r"W-\S+ State change \S+ -> (?P<state>WORKER_\w+)$", re.MULTILINE)
_EVENT = re.compile(
    _WORKER
    + r"(?:W-\S+ State change \S+ -> (?P<state>WORKER_\w+)$"
    + r"|Flushing req\.cmd (?P<command>\w+)|(?P<answered>Backend response time)"
    + r"|(?P<retry>Retry worker))",
    re.MULTILINE,
)
_REFUSED = re.compile(
    _PREFIX + r"main \S+\.ModelServer - Failed to load model: (\S+) +(.*?)(?:\\n.*)?$",
    re.MULTILINE,
)
_OUTPUT = _PREFIX + r"W-\d+-{worker}-std(?:out|err) MODEL_LOG - (.*)$"
_TRACEBACK = "Traceback (most recent call last):"
# The last lines of a worker's output that are shown; the log has all of it.
_SHOWN_LINES = 8


@dataclass(frozen=True)
class Failure:
    """Why a model could not be loaded. ``key`` is MODEL/VERSION.

    ``line`` is the most useful exception, ``output`` the last lines of the worker's output up to
    it, which may be empty.
    """

    key: str
    line: str
    output: str

    @property
    def model(self) -> str:
        return self.key.partition("/")[0]


def find_failure(
    ts_log: str, model_log: str, concerns: Callable[[str], bool] = lambda key: True
) -> Failure | None:
    """The first version that could not be loaded, of those whose key ``concerns`` the caller.

    The first two arguments are the text of the two logs since the start.
    """
    for match in _STATE.finditer(ts_log):
        if match["state"] == "WORKER_STOPPED" and concerns(_key(match)):
            return _explain(_key(match), model_log)
    refused = _REFUSED.search(ts_log)
    return Failure(refused[1], refused[2], "") if refused else None


@dataclass
class WorkerLog:
    """The state of one worker in the log; times are those of the reader's clock.

    ``key`` is its MODEL/VERSION. ``state`` is TorchServe's. ``busy_since`` is when it got its
    present batch, None if it has none. ``stopped_since`` is when it stopped, None as soon as
    TorchServe announces that it retries.
    """

    id: str
    key: str
    state: str = ""
    busy_since: float | None = None
    stopped_since: float | None = None


class Activity:
    """The workers' states, kept by reading TorchServe's log as it grows."""

    def __init__(self) -> None:
        self._workers: dict[str, WorkerLog] = {}

    def keep(self, keys: Collection[str]) -> None:
        """Forget the workers of all other versions."""
        self._workers = {n: log for n, log in self._workers.items() if log.key in keys}

    @property
    def workers(self) -> list[WorkerLog]:
        return list(self._workers.values())

    @property
    def busy(self) -> bool:
        """Whether a worker has a batch."""
        return any(log.busy_since is not None for log in self._workers.values())

    def update(self, ts_log: str, now: float) -> set[str]:
        """Read the next lines of the log; returns the keys with a worker that changed state."""
        changed = set()
        for match in _EVENT.finditer(ts_log):
            name, key = match["worker"], _key(match)
            log = self._workers.setdefault(name, WorkerLog(name.split("-")[1], key))
            if state := match["state"]:
                log.state, log.busy_since = state, None
                log.stopped_since = now if state == "WORKER_STOPPED" else None
                changed.add(key)
            elif match["retry"]:
                log.stopped_since = None
            elif match["answered"]:
                log.busy_since = None
            elif match["command"] != "LOAD":
                log.busy_since = now
        return changed


def _key(match: re.Match[str]) -> str:
    return f"{match['model']}/{match['version']}"


def _explain(key: str, model_log: str) -> Failure:
    worker = re.escape(key.replace("/", "_"))
    pattern = re.compile(_OUTPUT.replace("{worker}", worker), re.MULTILINE)
    output = pattern.findall(model_log)
    if _TRACEBACK not in output:
        line = "the worker ended without an exception: perhaps it was killed because memory ran out"
        return Failure(key, line, "\n".join(output[-_SHOWN_LINES:]))
    trace = output[output.index(_TRACEBACK) :]
    exceptions = [i for i, line in enumerate(trace) if re.match(r"[A-Za-z_][\w.]*(?::|$)", line)]
    if not exceptions:  # the log ends within the traceback
        line = "the worker ended with an exception"
        return Failure(key, line, "\n".join(trace[-_SHOWN_LINES:]))
    # After a failed import TorchServe tries its own handlers, and their failure hides the cause.
    masked = any(line.startswith("During handling of the above exception") for line in trace)
    end = exceptions[0 if masked else -1] + 1
    shown = [line for line in trace[:end] if set(line) - set(" ^~")]  # leave out the ^^^^ markers
    return Failure(key, trace[end - 1], "\n".join(shown[-_SHOWN_LINES:]))


class LogTail:
    """The text that is appended to a log file after this object was created."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = path.stat().st_size if path.exists() else 0
        self._file: BinaryIO | None = None
        self._partial = b""

    def read(self) -> str:
        """All of that text that the file still has; ``advance`` is not affected."""
        if not self._path.exists():
            return ""
        with self._path.open("rb") as file:
            if file.seek(0, 2) >= self._start:  # else log4j has started a new file
                file.seek(self._start)
            else:
                file.seek(0)
            return file.read().decode("utf-8", "replace")

    def advance(self) -> str:
        """The complete lines since the last call, or since the start, without a gap.

        The file stays open, so its end is read even after log4j has replaced it.
        """
        data = self._partial
        if self._file is None and self._path.exists():
            self._file = self._path.open("rb")
            self._file.seek(self._start)
        if self._file is not None:
            data += self._file.read()
            if self._is_replaced(self._file):
                data += self._file.read()
                self._file.close()
                self._file = self._path.open("rb")
                data += self._file.read()
        end = data.rfind(b"\n") + 1
        self._partial = data[end:]
        return data[:end].decode("utf-8", "replace")

    def _is_replaced(self, file: BinaryIO) -> bool:
        return self._path.exists() and not os.path.samestat(
            self._path.stat(), os.fstat(file.fileno())
        )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class ServerLogs:
    """TorchServe's two logs in the folder ``logs``, from now on."""

    def __init__(self, logs: Path) -> None:
        self.ts = LogTail(logs / "ts_log.log")
        self._model = LogTail(logs / "model_log.log")

    def find_failure(self, concerns: Callable[[str], bool]) -> Failure | None:
        """As the function, of these logs."""
        return find_failure(self.ts.read(), self._model.read(), concerns)
